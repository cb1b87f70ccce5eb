//! Checkpoints in the store: `checkpoint` in the run's folder, beside its output.
//!
//! A run that is stopped to run again leaves one; the file and its name are on the disk before the completion event says
//! so, and it is never changed again. It goes with the losing runs of its shard.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use forecastle_protos::ids::RunId;
use forecastle_protos::v1;
use forecastle_resources::Bytes;

use crate::runner::output_store::{OutputStore, RunFolder, StoreError};

/// Its name in the run's folder.
pub(crate) const NAME: &str = "checkpoint";

/// Where a process of the run writes it. Not the name that counts, so that half a file is none.
pub(crate) fn part(folder: &RunFolder) -> PathBuf {
    folder.beside("checkpoint.part")
}

/// All files that writing one can leave; a task's process replaces the first by the second.
pub(crate) fn parts(folder: &RunFolder) -> [PathBuf; 2] {
    [part(folder), folder.beside("checkpoint.part.next")]
}

/// Keeps what a command wrote, if it wrote something and not too much. Blocks.
pub(crate) fn keep(folder: &RunFolder, run: RunId, limit: Bytes) -> Result<Option<v1::Checkpoint>, StoreError> {
    let part = part(folder);
    let found = match fs::symlink_metadata(&part) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("look at", &part)(error)),
    };
    if !found.is_file() || found.len() > limit.0 {
        tracing::warn!(%run, bytes = found.len(), %limit, "a checkpoint is too large or no file; it is not kept");
        return Ok(None);
    }
    let sealed = File::open(&part).and_then(|file| {
        file.set_permissions(fs::Permissions::from_mode(0o444))?;
        file.sync_all()
    });
    sealed.map_err(StoreError::io("sync", &part))?;
    let path = folder.beside(NAME);
    fs::rename(&part, &path).map_err(StoreError::io("rename", &part))?;
    folder.sync()?;
    Ok(Some(v1::Checkpoint { uri: folder.uri_of(NAME), bytes: found.len(), run_id: run.to_string() }))
}

/// Keeps what a task said. Blocks.
pub(crate) fn write(folder: &RunFolder, run: RunId, checkpoint: &[u8]) -> Result<Option<v1::Checkpoint>, StoreError> {
    let part = part(folder);
    File::create_new(&part).and_then(|mut file| file.write_all(checkpoint)).map_err(StoreError::io("write", &part))?;
    keep(folder, run, Bytes(checkpoint.len() as u64))
}

/// The file of a checkpoint that an earlier attempt left. Without it the run begins anew, which is no failure. Blocks.
pub(crate) fn find(store: &OutputStore, checkpoint: Option<&v1::Checkpoint>) -> Option<PathBuf> {
    let checkpoint = checkpoint?;
    match store.resolve(&checkpoint.uri) {
        Ok(path) => Some(path),
        Err(error) => {
            tracing::warn!(left_by = checkpoint.run_id, %error, "a checkpoint cannot be found; the run begins anew");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_protos::ids::{RequestId, ShardId};

    #[test]
    fn only_a_whole_file_within_the_limit_is_kept_and_found_again() {
        let root = tempfile::tempdir().unwrap();
        let store = OutputStore::open(root.path()).unwrap();
        let (shard, run) = (ShardId { request: RequestId::new(), stage: 0, index: 1 }, RunId::new());
        let folder = store.create_run(shard, run).unwrap();
        assert_eq!(keep(&folder, run, Bytes(4)).unwrap(), None, "nothing was written");
        fs::write(part(&folder), "12345").unwrap();
        assert_eq!(keep(&folder, run, Bytes(4)).unwrap(), None, "too large");
        fs::remove_file(part(&folder)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", part(&folder)).unwrap();
        assert_eq!(keep(&folder, run, Bytes::mib(1)).unwrap(), None, "a link");
        fs::remove_file(part(&folder)).unwrap();
        let kept = write(&folder, run, b"half").unwrap().unwrap();
        assert_eq!((kept.bytes, kept.run_id.as_str()), (4, run.to_string().as_str()));
        folder.discard().unwrap();
        let path = find(&store, Some(&kept)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"half");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o222, 0);
        fs::remove_file(path).unwrap();
        assert_eq!(find(&store, Some(&kept)), None);
        let elsewhere = v1::Checkpoint { uri: "file:///etc/passwd".to_owned(), ..kept };
        assert_eq!(find(&store, Some(&elsewhere)), None);
    }
}
