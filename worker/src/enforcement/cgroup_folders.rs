//! Killing what is in cgroups, and removing them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::enforcement::cage::Pause;
use crate::enforcement::control_file;
use crate::enforcement::error::EnforcementError;
use crate::enforcement::tenure::Tenure;

/// How long a dropped cage is worked on in the background. What is left then, the next life of the worker sweeps.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(30);

/// The cgroups of one run: one with version 2, one in each hierarchy with version 1.
#[derive(Debug)]
pub(crate) struct CgroupFolders {
    folders: Vec<PathBuf>,
    /// The folder in version 1's freezer, if there is one.
    freezer: Option<PathBuf>,
    removed: AtomicBool,
    /// The folder above goes after this one.
    tenure: Option<Arc<Tenure>>,
}

impl CgroupFolders {
    /// Makes the folders; if one cannot be made, none is left.
    pub(crate) fn create(
        folders: Vec<PathBuf>,
        freezer: Option<PathBuf>,
        tenure: Arc<Tenure>,
    ) -> Result<Self, EnforcementError> {
        let mut made = Self { folders: Vec::new(), freezer, removed: AtomicBool::new(false), tenure: Some(tenure) };
        for folder in folders {
            fs::create_dir(&folder).map_err(|source| EnforcementError::control("create", &folder, source))?;
            made.folders.push(folder);
        }
        Ok(made)
    }

    /// Kills everything inside, once; answers how many processes there were.
    pub(crate) fn kill_all(&self) -> Result<usize, EnforcementError> {
        if self.removed.load(Ordering::Acquire) { Ok(0) } else { kill_all(&self.folders, self.freezer.as_deref()) }
    }

    /// Removes the folders; nothing may be inside.
    pub(crate) fn remove(&self) -> Result<(), EnforcementError> {
        if !self.removed.load(Ordering::Acquire) {
            self.folders.iter().try_for_each(|folder| remove_tree(folder))?;
            self.removed.store(true, Ordering::Release);
        }
        Ok(())
    }
}

impl Drop for CgroupFolders {
    fn drop(&mut self) {
        if self.removed.load(Ordering::Acquire)
            || (self.kill_all().is_ok_and(|left| left == 0) && self.remove().is_ok())
        {
            return;
        }
        let (folders, freezer, tenure) = (std::mem::take(&mut self.folders), self.freezer.take(), self.tenure.take());
        let work = move || {
            if let Err(error) = kill_and_remove(&folders, freezer.as_deref(), BACKGROUND_LIMIT) {
                tracing::warn!(%error, source = error.errno().map(tracing::field::display), "a cage is left for the next start");
            }
            drop(tenure);
        };
        // Without a thread to be had, the next start sweeps it.
        if let Err(error) = std::thread::Builder::new().name("cage-removal".to_owned()).spawn(work) {
            tracing::warn!(%error, "a cage is left for the next start");
        }
    }
}

/// Kills and removes, trying again until `within` has passed. Blocks.
pub(crate) fn kill_and_remove(
    folders: &[PathBuf],
    freezer: Option<&Path>,
    within: Duration,
) -> Result<(), EnforcementError> {
    let mut pause = Pause::until(Instant::now() + within);
    loop {
        let attempt =
            kill_all(folders, freezer).and_then(|_| folders.iter().try_for_each(|folder| remove_tree(folder)));
        match attempt {
            Ok(()) => return Ok(()),
            Err(error) if pause.is_over() => return Err(error),
            Err(_) => std::thread::sleep(pause.next()),
        }
    }
}

fn kill_all(folders: &[PathBuf], freezer: Option<&Path>) -> Result<usize, EnforcementError> {
    let inside = inside(folders)?;
    if inside.is_empty() {
        return Ok(0);
    }
    // Version 2 kills the whole subtree at once, whatever forks meanwhile.
    let mut killed_by_kernel = !folders.is_empty();
    for folder in folders {
        killed_by_kernel &= control_file::write_if_present(&folder.join("cgroup.kill"), 1)?;
    }
    if killed_by_kernel {
        return Ok(inside.len());
    }
    // With version 1, freezing keeps them from forking faster than they are killed. Frozen ones die when they thaw.
    if let Some(freezer) = freezer {
        control_file::write_if_present(&freezer.join("freezer.state"), "FROZEN")?;
    }
    let killed = kill_members(folders);
    if let Some(freezer) = freezer {
        control_file::write_if_present(&freezer.join("freezer.state"), "THAWED")?;
    }
    killed?;
    Ok(inside.len())
}

/// Kills by number. A number could be another process by now: so a handle is taken first, and only what is still
/// inside after that is killed by its handle.
fn kill_members(folders: &[PathBuf]) -> Result<(), EnforcementError> {
    let mut handles = Vec::new();
    for pid in inside(folders)?.into_iter().filter_map(Pid::from_raw) {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handles.push((pid, handle)),
            // Gone already.
            Err(rustix::io::Errno::SRCH) => {}
            // An old kernel, or no handles left: better by number than not at all.
            Err(_) => kill_process(pid, Signal::KILL).or_else(gone).map_err(|error| refused(pid, error))?,
        }
    }
    let still_inside = inside(folders)?;
    for (pid, handle) in handles {
        if still_inside.contains(&pid.as_raw_pid()) {
            pidfd_send_signal(handle, Signal::KILL).or_else(gone).map_err(|error| refused(pid, error))?;
        }
    }
    Ok(())
}

fn gone(error: rustix::io::Errno) -> rustix::io::Result<()> {
    if error == rustix::io::Errno::SRCH { Ok(()) } else { Err(error) }
}

fn refused(pid: Pid, error: rustix::io::Errno) -> EnforcementError {
    EnforcementError::control("kill", format!("/proc/{}", pid.as_raw_pid()), error)
}

/// Everything in the folders and below them. A folder that is gone has nothing in it.
fn inside(folders: &[PathBuf]) -> Result<BTreeSet<i32>, EnforcementError> {
    let mut found = BTreeSet::new();
    for folder in folders {
        for cgroup in control_file::descendants(folder).iter().chain([folder]) {
            match control_file::processes(cgroup) {
                Ok(processes) => found.extend(processes),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

fn is_gone(error: &EnforcementError) -> bool {
    matches!(error.errno(), Some(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV))
}

/// Removes a cgroup and those below it; one that is gone already is no error.
pub(crate) fn remove_tree(folder: &Path) -> Result<(), EnforcementError> {
    for cgroup in control_file::descendants(folder).iter().map(PathBuf::as_path).chain([folder]) {
        match fs::remove_dir(cgroup) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(EnforcementError::control("remove", cgroup, source)),
        }
    }
    Ok(())
}
