//! How faults are made.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};

/// A file system of its own with little room, mounted on a folder.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

/// Its room.
const ROOM: &str = "size=32m";

/// The file that fills it.
const FILLER: &str = "filler";

impl SmallDisk {
    /// Mounts one on `folder`, which is made.
    pub fn mount(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        mount("none", folder, "tmpfs", MountFlags::empty(), Some(c_room().as_c_str()))
            .context("mounting a small disk, which needs root")?;
        Ok(Self(folder.to_owned()))
    }

    /// Leaves no room.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut filler = fs::File::create(self.0.join(FILLER))?;
        let block = [0; 4096];
        while filler.write_all(&block).is_ok() {}
        Ok(())
    }

    /// Makes room again.
    pub fn free(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.0.join(FILLER)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => Ok(other?),
        }
    }
}

fn c_room() -> std::ffi::CString {
    std::ffi::CString::new(ROOM).unwrap_or_default()
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has a file there keeps it until then; nothing more can be done.
        unmount(&self.0, UnmountFlags::DETACH).ok();
    }
}

/// A wall clock for a program that can be set while it runs, by libfaketime.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
    environment: Vec<(String, String)>,
}

impl Clock {
    /// A clock that is right at first; kept in `file`.
    pub fn new(file: PathBuf) -> anyhow::Result<Self> {
        let listed = Command::new("dpkg").args(["-L", "libfaketime"]).output().context("dpkg")?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let library = listed.lines().find(|line| line.ends_with("libfaketimeMT.so.1"));
        let library = library.context("libfaketime is missing: apt-get install faketime")?;
        let variables = [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", &file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1"),
            // Only the wall clock: nothing sets a monotonic one.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ];
        let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let clock = Self { file, environment };
        clock.jump(0)?;
        Ok(clock)
    }

    /// From now on it is so many seconds ahead.
    pub fn jump(&self, seconds: i64) -> anyhow::Result<()> {
        // In one step: it is read all the time.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(fs::rename(new, &self.file)?)
    }

    /// What makes a program go by it.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// The processes below another, the nearest first.
pub fn descendants(of: Pid) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (pid, stat) in processes("stat") {
        // The name, in parentheses, may hold anything.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![of.as_raw_nonzero().get()];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(children.remove(&parent).unwrap_or_default());
        next += 1;
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

/// A file of every process, with its id.
fn processes(file: &str) -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A process may end while it is looked at.
    pids.filter_map(|pid: i32| {
        let text = fs::read(format!("/proc/{pid}/{file}")).ok()?;
        Some((pid, String::from_utf8_lossy(&text).into_owned()))
    })
    .collect()
}

/// Kills one process of a run of this worker; false if it runs nothing.
pub fn kill_runner(worker: Pid) -> bool {
    descendants(worker).last().is_some_and(|runner| kill_process(*runner, Signal::KILL).is_ok())
}

/// Processes whose command, folder or environment mentions `folder`, as text for people.
pub fn processes_of(folder: &Path) -> Vec<String> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mention = folder.display().to_string();
    let mut found = BTreeMap::new();
    for file in ["cmdline", "environ"] {
        for (pid, text) in processes(file) {
            if pid != own && text.contains(&mention) {
                let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
                found.insert(pid, format!("process {pid}: {words}"));
            }
        }
    }
    found.into_values().collect()
}

/// Folders of a worker's life in the kernel's hierarchies of cgroups.
pub fn cgroups_of(worker: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.file_name() == worker {
                found.push(entry.path());
            } else if depth < 8 {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    found
}
