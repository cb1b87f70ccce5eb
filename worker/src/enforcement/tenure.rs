//! The folder of one life of the worker, `<base>/forecastle/<worker-id>` in each hierarchy, and what earlier lives left.
//!
//! Each folder is locked (`flock`) as long as its worker lives; the kernel lets go of the lock however the worker dies.
//! So a folder that can be locked is nobody's, and sweeping never touches a living neighbour.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forecastle_protos::ids::WorkerId;

use crate::enforcement::cgroup_folders::{kill_and_remove, remove_tree};
use crate::enforcement::control_file;
use crate::enforcement::error::EnforcementError;

/// The folder, in every hierarchy's base, that holds those of all workers.
pub(crate) const FOLDER: &str = "forecastle";

/// How long sweeping works on one cage.
const SWEEP_LIMIT: Duration = Duration::from_secs(5);

/// How often a folder is made again that a sweeping neighbour took away before it was locked.
const ATTEMPTS: usize = 16;

/// The locked folders of one life. Removed when dropped, if they are empty.
#[derive(Debug)]
pub(crate) struct Tenure {
    parents: Vec<PathBuf>,
    name: String,
    locks: Vec<File>,
}

impl Tenure {
    /// Makes and locks a folder below each of `parents`.
    pub(crate) fn begin(parents: Vec<PathBuf>, worker: WorkerId) -> Result<Self, EnforcementError> {
        let mut tenure = Self { parents, name: worker.to_string(), locks: Vec::new() };
        for parent in tenure.parents.clone() {
            let lock = make_and_lock(&parent.join(&tenure.name))?;
            tenure.locks.push(lock);
        }
        Ok(tenure)
    }

    /// Where the folders of all workers are.
    pub(crate) fn parents(&self) -> &[PathBuf] {
        &self.parents
    }

    /// The folder below this parent.
    pub(crate) fn folder(&self, parent: &Path) -> PathBuf {
        parent.join(&self.name)
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        for parent in &self.parents {
            // What is not empty is swept by the next life; the parent is shared.
            let _ = fs::remove_dir(parent.join(&self.name));
            let _ = fs::remove_dir(parent);
        }
    }
}

pub(crate) fn make_and_lock(folder: &Path) -> Result<File, EnforcementError> {
    for _ in 0..ATTEMPTS {
        match fs::create_dir_all(folder) {
            Ok(()) => {}
            // The last neighbour to leave removed the parent in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(EnforcementError::control("create", folder, source)),
        }
        if let Some(lock) = try_lock(folder)? {
            return Ok(lock);
        }
    }
    let source = io::Error::other("it is removed or locked by others again and again");
    Err(EnforcementError::control("lock", folder, source))
}

/// Locks a folder. `None` if it is another's, or gone.
pub(crate) fn try_lock(folder: &Path) -> Result<Option<File>, EnforcementError> {
    let file = match File::open(folder) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(EnforcementError::control("open", folder, source)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(source)) => return Err(EnforcementError::control("lock", folder, source)),
    }
    // It could have been removed, or made again, between opening and locking.
    let same = match (file.metadata(), fs::metadata(folder)) {
        (Ok(locked), Ok(there)) => locked.ino() == there.ino() && locked.dev() == there.dev(),
        _ => false,
    };
    Ok(same.then_some(file))
}

/// Kills and removes what earlier lives left below `parents` (the freezer's parent among them, if there is one). What
/// cannot be removed is said in the log and left. Answers how many folders of dead workers are gone. Blocks.
pub(crate) fn sweep(parents: &[PathBuf], freezer: Option<&Path>) -> usize {
    let mut swept = 0;
    for parent in parents {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        // Only what has the name of a worker was made by one.
        let named =
            entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<WorkerId>().is_ok()));
        for folder in named.map(|entry| entry.path()) {
            let result = try_lock(&folder).and_then(|lock| match lock {
                Some(_held) => remove_dead(&folder, freezer).map(|()| true),
                None => Ok(false),
            });
            match result {
                Ok(gone) => swept += usize::from(gone),
                Err(error) => tracing::warn!(folder = %folder.display(), %error, "what a dead worker left stays"),
            }
        }
    }
    swept
}

fn remove_dead(folder: &Path, freezer: Option<&Path>) -> Result<(), EnforcementError> {
    for cage in control_file::descendants(folder) {
        let frozen = freezer.filter(|freezer| cage.starts_with(freezer)).map(|_| cage.as_path());
        kill_and_remove(std::slice::from_ref(&cage), frozen, SWEEP_LIMIT)?;
    }
    remove_tree(folder)
}
