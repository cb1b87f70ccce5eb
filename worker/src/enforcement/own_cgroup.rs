//! Where this process is in the hierarchies of cgroups, as the files that it can reach.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::enforcement::control_file;
use crate::enforcement::error::EnforcementError;

/// A hierarchy of cgroups: where it is mounted, and where this process is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// The mounted folder.
    pub mount: PathBuf,
    /// This process's own cgroup: the mount or a folder below it.
    pub own: PathBuf,
}

impl Hierarchy {
    /// The cgroup at `path`, seen from the hierarchy's root; this process's own if there is none.
    pub fn at(&self, path: Option<&Path>) -> PathBuf {
        path.map_or_else(|| self.own.clone(), |path| below(&self.mount, path))
    }
}

/// The hierarchies that this process can see.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnCgroup {
    /// Version 2, if it is mounted.
    pub v2: Option<Hierarchy>,
    /// Version 1, by controller. Controllers that are mounted together have equal hierarchies.
    pub v1: BTreeMap<String, Hierarchy>,
}

impl OwnCgroup {
    /// Reads `/proc/self`.
    pub fn detect() -> Result<Self, EnforcementError> {
        let cgroup = control_file::read(Path::new("/proc/self/cgroup"))?;
        let mounts = control_file::read(Path::new("/proc/self/mountinfo"))?;
        Ok(Self::parse(&cgroup, &mounts))
    }

    /// From the texts of `/proc/self/cgroup` and `/proc/self/mountinfo` (see `cgroups(7)` and `proc(5)`).
    pub fn parse(cgroup: &str, mountinfo: &str) -> Self {
        let memberships: Vec<(Vec<&str>, &str)> = cgroup
            .lines()
            .filter_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                Some((parts.next()?.split(',').filter(|name| !name.is_empty()).collect(), parts.next()?))
            })
            .collect();
        let membership =
            |controller: &str| memberships.iter().find(|(names, _)| names.contains(&controller)).map(|(_, path)| *path);
        let unified = memberships.iter().find(|(names, _)| names.is_empty()).map(|(_, path)| *path);
        let mut found = Self::default();
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            if mount.kind == "cgroup2" {
                if let (None, Some(path)) = (&found.v2, unified) {
                    found.v2 = Some(mount.hierarchy(path));
                }
            } else if mount.kind == "cgroup" {
                for option in mount.super_options.split(',') {
                    if let Some(path) = membership(option) {
                        found.v1.entry(option.to_owned()).or_insert_with(|| mount.hierarchy(path));
                    }
                }
            }
        }
        found
    }
}

struct Mount<'a> {
    /// The part of the hierarchy that is mounted.
    root: String,
    point: String,
    kind: &'a str,
    super_options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, _, super_options) = (after.next()?, after.next()?, after.next()?);
        Some(Self { root: unescape(root), point: unescape(point), kind, super_options })
    }

    fn hierarchy(&self, own: &str) -> Hierarchy {
        let mount = PathBuf::from(&self.point);
        // In a container without a namespace of its own the path is the host's, and so is the mount's root. A cgroup
        // outside what is mounted cannot be reached: what is mounted is the nearest thing.
        let own = Path::new(own).strip_prefix(&self.root).map_or_else(|_| mount.clone(), |rest| below(&mount, rest));
        Hierarchy { mount, own }
    }
}

/// `path` below `folder`; a path that leads out of it is the folder itself.
fn below(folder: &Path, path: &Path) -> PathBuf {
    if path.components().any(|part| part == Component::ParentDir) {
        return folder.to_owned();
    }
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_)));
    parts.fold(folder.to_owned(), |folder, part| folder.join(part))
}

/// Spaces and the like stand as `\040` in mountinfo.
fn unescape(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = text.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            plain.push(byte);
            at += 4;
        } else {
            plain.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOUNTS: &str = "23 1 254:0 / / rw - ext4 /dev/root rw\n\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn hybrid_hierarchies_are_told_apart() {
        let own = OwnCgroup::parse("4:memory:/a/b\n2:cpu,cpuacct:/c\n1:name=systemd:/\n0::/d\n", MOUNTS);
        let memory = Hierarchy { mount: "/sys/fs/cgroup/memory".into(), own: "/sys/fs/cgroup/memory/a/b".into() };
        assert_eq!(own.v1["memory"], memory);
        assert_eq!(own.v1["cpu"], own.v1["cpuacct"]);
        assert_eq!(own.v1["cpu"].own, Path::new("/sys/fs/cgroup/cpu,cpuacct/c"));
        assert!(!own.v1.contains_key("rw") && !own.v1.contains_key("blkio"));
        assert_eq!(own.v2.unwrap().own, Path::new("/sys/fs/cgroup/unified/d"));
        assert_eq!(memory.at(None), memory.own);
        assert_eq!(memory.at(Some(Path::new("/x/y"))), Path::new("/sys/fs/cgroup/memory/x/y"));
        assert_eq!(memory.at(Some(Path::new("/../../etc"))), memory.mount, "nothing leads out of the hierarchy");
    }

    #[test]
    fn inside_a_container_the_mounts_root_is_taken_off() {
        let mounts = "40 31 0:37 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let own = |path: &str| OwnCgroup::parse(&format!("4:memory:{path}\n"), mounts).v1["memory"].own.clone();
        assert_eq!(own("/docker/abc/x"), Path::new("/sys/fs/cgroup/memory/x"));
        assert_eq!(own("/docker/abc"), Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(own("/elsewhere"), Path::new("/sys/fs/cgroup/memory"));
        let v2 = OwnCgroup::parse(
            "0::/../../x\n",
            "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
        );
        assert_eq!(v2.v2.unwrap().own, Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn escaped_mount_points_are_read() {
        let mounts = "40 31 0:37 / /mnt/c\\040g rw - cgroup2 cgroup2 rw\n";
        assert_eq!(OwnCgroup::parse("0::/a\n", mounts).v2.unwrap().own, Path::new("/mnt/c g/a"));
        assert_eq!(unescape("a\\"), "a\\");
        assert_eq!(unescape("\\999é\\040"), "\\999é ");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(cgroup in ".*", mounts in "([0-9]+ )*- cgroup2? [a-z,]*|.*", text in "[\\\\0-9é]*") {
            let _ = OwnCgroup::parse(&cgroup, &mounts);
            let _ = unescape(&text);
        }
    }
}
