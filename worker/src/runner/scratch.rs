//! What is gone after a run: `<scratch>/<worker>/<run>/`.
//!
//! The worker's folder is locked as long as it lives, so that the next life knows what a dead one left, and removes it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use forecastle_protos::ids::{RunId, WorkerId};

use crate::enforcement::EnforcementError;
use crate::enforcement::tenure::{make_and_lock, try_lock};

/// The scratch folders of one life of the worker.
#[derive(Debug)]
pub struct ScratchRoot {
    folder: PathBuf,
    _lock: File,
}

impl ScratchRoot {
    /// Removes what dead workers left below `root`, and makes a folder for this one. Blocks.
    pub fn open(root: &Path, worker: WorkerId) -> Result<Self, EnforcementError> {
        fs::create_dir_all(root).map_err(|source| EnforcementError::control("create", root, source))?;
        let root = fs::canonicalize(root).map_err(|source| EnforcementError::control("resolve", root, source))?;
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let dead = entry.file_name().to_str().is_some_and(|name| name.parse::<WorkerId>().is_ok());
            if dead
                && let Some(_held) = try_lock(&entry.path())?
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(folder = %entry.path().display(), %error, "what a dead worker left stays");
            }
        }
        let folder = root.join(worker.to_string());
        let lock = make_and_lock(&folder)?;
        Ok(Self { folder, _lock: lock })
    }

    /// Makes the folder of a run. Blocks.
    pub fn create(&self, run: RunId) -> io::Result<Scratch> {
        let folder = self.folder.join(run.to_string());
        // Only for the user that runs it.
        DirBuilder::new().mode(0o700).create(&folder)?;
        let scratch = Scratch { work: folder.join("work"), folder };
        DirBuilder::new().mode(0o700).create(&scratch.work)?;
        Ok(scratch)
    }
}

impl Drop for ScratchRoot {
    fn drop(&mut self) {
        // What is not empty, the next life removes.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The scratch folder of one run. Removed when dropped; [`Self::remove`] says whether that worked.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    work: PathBuf,
}

impl Scratch {
    /// Where the run may write what it likes.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// A file of the worker's own, where the run's files cannot be in its way.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Removes everything. Blocks.
    pub fn remove(self) -> io::Result<()> {
        remove(&self.folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "a scratch folder stays until the next start");
        }
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dead_workers_left_is_removed_and_living_ones_are_not_touched() {
        let root = tempfile::tempdir().unwrap();
        let dead = root.path().join(WorkerId::new().to_string());
        fs::create_dir_all(dead.join("run/work")).unwrap();
        let other = root.path().join("not-a-worker");
        fs::create_dir(&other).unwrap();
        let living = ScratchRoot::open(root.path(), WorkerId::new()).unwrap();
        let scratch = living.create(RunId::new()).unwrap();
        assert!(!dead.exists() && other.exists());
        let neighbour = ScratchRoot::open(root.path(), WorkerId::new()).unwrap();
        assert!(scratch.work().exists(), "a neighbour that starts leaves it alone");
        drop(neighbour);
        let work = scratch.work().to_owned();
        scratch.remove().unwrap();
        assert!(!work.exists());
        drop(living);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
