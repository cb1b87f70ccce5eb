//! A cgroup of version 2 that this process was given, made ready for cages, and what to say if it cannot be.
//!
//! A cgroup that hands controllers on to its children may hold no processes itself. So the worker moves itself out of
//! the way, into a leaf beside those of its runs. Source: the kernel's `Documentation/admin-guide/cgroup-v2.rst`,
//! "Delegation" and "No Internal Process Constraint".

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::enforcement::control_file::{processes, read, write};
use crate::enforcement::error::EnforcementError;

/// Where the worker itself goes.
pub(crate) const SUPERVISOR: &str = "forecastle-supervisor";

/// Controllers that are used; the first is required.
pub(crate) const CONTROLLERS: [&str; 4] = ["memory", "cpu", "io", "pids"];

/// The most processes in the way that a message names.
const NAMED: usize = 3;

/// The controllers in a file of names.
pub(crate) fn controllers(path: &Path) -> Result<Vec<String>, EnforcementError> {
    Ok(read(path)?.split_whitespace().map(str::to_owned).collect())
}

/// Hands on to the children of a cgroup what they do not have yet of what it is `offered`.
pub(crate) fn hand_on(cgroup: &Path, offered: &[String]) -> Result<(), EnforcementError> {
    let path = cgroup.join("cgroup.subtree_control");
    let given = controllers(&path)?;
    for controller in CONTROLLERS {
        let wanted = offered.iter().any(|offered| offered == controller);
        if wanted && !given.iter().any(|given| given == controller) {
            write(&path, format_args!("+{controller}"))?;
        }
    }
    Ok(())
}

/// The same for the base, where this process may be in the way.
pub(crate) fn hand_on_from_base(base: &Path, offered: &[String]) -> Result<(), EnforcementError> {
    match hand_on(base, offered) {
        Err(error) if error.errno() == Some(Errno::BUSY) => {}
        other => return other,
    }
    let aside = base.join(SUPERVISOR);
    match fs::create_dir(&aside) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(EnforcementError::control("create", aside, source));
        }
        _ => {}
    }
    let me = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    if processes(base)?.contains(&me) {
        write(&aside.join("cgroup.procs"), 0)?;
    }
    hand_on(base, offered).inspect_err(|_| {
        // Others are in the way too: back to where it was.
        let _ = write(&base.join("cgroup.procs"), 0);
        let _ = fs::remove_dir(&aside);
    })
}

/// Why cages cannot be made below `base`, and what would help.
pub(crate) fn obstacle(base: &Path, error: &EnforcementError) -> String {
    match error.errno() {
        Some(Errno::ROFS) => format!(
            "{error}: the cgroups are mounted read-only, as in most containers; give the container a writable cgroup of its own"
        ),
        Some(Errno::ACCESS | Errno::PERM) => format!(
            "{error}: user {} may not; run the worker where a cgroup is delegated to it (a systemd unit with Delegate=yes, or `systemd-run --user --scope -p Delegate=yes`), or as root",
            rustix::process::geteuid().as_raw()
        ),
        Some(Errno::BUSY) => format!(
            "other processes are in {} itself ({}), and a cgroup that limits its children may hold none; start the worker alone in a cgroup of its own (a systemd unit with Delegate=yes), or name one that is empty in `enforcement.base`",
            base.display(),
            in_the_way(base)
        ),
        Some(Errno::NOENT) if !base.exists() => {
            format!("there is no cgroup {}; make it, or correct `enforcement.base`", base.display())
        }
        _ => {
            let why = std::error::Error::source(error).map(|why| format!(" ({why})")).unwrap_or_default();
            format!("{error}{why}; the worker needs a cgroup of its own: under systemd a unit with Delegate=yes")
        }
    }
}

/// Why `base` has no memory controller, and what would help.
pub(crate) fn no_memory(mount: &Path, base: &Path, offered: &[String]) -> String {
    let mut text = format!("{} has no memory controller", base.display());
    if !offered.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(text, " (it has: {})", offered.join(", "));
    }
    let has_memory = |cgroup: &Path| {
        controllers(&cgroup.join("cgroup.controllers")).is_ok_and(|all| all.iter().any(|one| one == CONTROLLERS[0]))
    };
    let withholding = base.ancestors().skip(1).take_while(|cgroup| cgroup.starts_with(mount)).find(|up| has_memory(up));
    match withholding {
        Some(cgroup) => {
            let _ = write!(
                text,
                ": {} does not hand it on; under systemd set Delegate=yes on the worker's unit, and for a user's units Delegate=cpu io memory pids on user@.service",
                cgroup.join("cgroup.subtree_control").display()
            );
        }
        None => text.push_str(": the kernel has none for version 2, or version 1 uses it"),
    }
    text
}

/// Names processes of a cgroup, other than this one.
fn in_the_way(base: &Path) -> String {
    let me = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    let mut all = processes(base).unwrap_or_default();
    all.retain(|pid| *pid != me);
    let name = |pid: &i32| {
        let name = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/comm"))).unwrap_or_default();
        format!("{pid} {}", name.trim().escape_debug()).trim_end().to_owned()
    };
    let mut text = all.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        let _ = write!(text, " and {} more", all.len() - NAMED);
    }
    if text.is_empty() { "unseen, or gone by now".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: Errno) -> EnforcementError {
        EnforcementError::control("write to", "/cg/cgroup.subtree_control", errno)
    }

    #[test]
    fn each_obstacle_says_what_to_do() {
        let base = Path::new("/no/such/cgroup");
        for (errno, words) in [
            (Errno::ROFS, "mounted read-only"),
            (Errno::ACCESS, "Delegate=yes"),
            (Errno::PERM, "may not"),
            (Errno::BUSY, "may hold none"),
            (Errno::NOENT, "there is no cgroup /no/such/cgroup"),
            (Errno::OPNOTSUPP, "a cgroup of its own"),
        ] {
            let text = obstacle(base, &refused(errno));
            assert!(text.contains(words) && !text.contains('\n'), "{errno:?}: {text}");
        }
    }

    #[test]
    fn a_missing_controller_is_traced_to_the_cgroup_that_withholds_it() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("outer/inner");
        fs::create_dir_all(&base).unwrap();
        let offer = |cgroup: &Path, text| fs::write(cgroup.join("cgroup.controllers"), text).unwrap();
        offer(folder.path(), "cpu memory\n");
        offer(&folder.path().join("outer"), "cpu memory\n");
        offer(&base, "cpu\n");
        let text = no_memory(folder.path(), &base, &["cpu".to_owned()]);
        assert!(text.contains("outer/cgroup.subtree_control does not hand it on"), "{text}");
        assert!(text.contains("(it has: cpu)"), "{text}");
        offer(folder.path(), "hugetlb\n");
        offer(&folder.path().join("outer"), "hugetlb\n");
        let text = no_memory(folder.path(), &base, &[]);
        assert!(text.contains("version 1 uses it"), "{text}");
    }
}
