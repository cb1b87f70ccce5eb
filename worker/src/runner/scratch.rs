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
    root: PathBuf,
    folder: PathBuf,
    _lock: File,
}

impl ScratchRoot {
    /// Removes what dead workers left below `root`, and makes a folder for this one. Blocks.
    pub fn open(root: &Path, worker: WorkerId) -> Result<Self, EnforcementError> {
        fs::create_dir_all(root).map_err(|source| EnforcementError::control("create", root, source))?;
        let root = fs::canonicalize(root).map_err(|source| EnforcementError::control("resolve", root, source))?;
        let folder = root.join(worker.to_string());
        let lock = make_and_lock(&folder)?;
        let opened = Self { root, folder, _lock: lock };
        opened.sweep();
        Ok(opened)
    }

    /// Removes what dead workers left; answers how many folders of theirs are gone. What cannot be removed is said in
    /// the log and left. Blocks.
    pub fn sweep(&self) -> usize {
        let mut swept = 0;
        for folder in fs::read_dir(&self.root).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let name = folder.file_name().and_then(|name| name.to_str());
            if folder == self.folder || name.is_none_or(|name| name.parse::<WorkerId>().is_err()) {
                continue;
            }
            let removed = match try_lock(&folder) {
                Ok(Some(_held)) => remove(&folder).map(|()| 1).map_err(|error| error.to_string()),
                Ok(None) => Ok(0),
                Err(error) => Err(error.to_string()),
            };
            match removed {
                Ok(gone) => swept += gone,
                Err(error) => tracing::warn!(folder = %folder.display(), error, "what a dead worker left stays"),
            }
        }
        swept
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
        fs::create_dir_all(dead.join("run/work")).unwrap();
        assert_eq!((living.sweep(), living.sweep()), (1, 0), "also while it runs");
        assert!(!dead.exists() && scratch.work().exists());
        let work = scratch.work().to_owned();
        scratch.remove().unwrap();
        assert!(!work.exists());
        drop(living);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
