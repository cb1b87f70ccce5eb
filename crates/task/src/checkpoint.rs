//! Where an earlier attempt came to, and where this one has come to.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use forecastle_resources::Bytes;
use tokio::sync::watch;

/// Two blobs that only the task can read: what it was given, and what it keeps. Cheap to clone; clones share both.
#[derive(Clone, Default)]
pub struct Checkpoint {
    given: Option<Arc<[u8]>>,
    kept: watch::Sender<Option<Vec<u8>>>,
}

/// A checkpoint is more than is kept: large state is better a file that is written again, or a smaller shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint has {0}, and at most {largest} are kept", largest = Checkpoint::LARGEST)]
pub struct CheckpointTooLarge(pub Bytes);

impl Checkpoint {
    /// The largest checkpoint of a task.
    pub const LARGEST: Bytes = Bytes::mib(16);

    /// What an earlier attempt kept; nothing is kept yet.
    pub fn of(given: Vec<u8>) -> Self {
        Self { given: Some(given.into()), kept: watch::Sender::default() }
    }

    /// What an earlier attempt kept, from the file that holds it. Blocks.
    pub fn read(path: &Path) -> io::Result<Self> {
        // More than that was never kept by a task.
        if std::fs::metadata(path)?.len() > Self::LARGEST.0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        std::fs::read(path).map(Self::of)
    }

    /// What an earlier attempt kept.
    pub fn given(&self) -> Option<&[u8]> {
        self.given.as_deref()
    }

    /// Keeps this instead of what was kept before.
    pub fn keep(&self, checkpoint: Vec<u8>) -> Result<(), CheckpointTooLarge> {
        let size = Bytes(checkpoint.len() as u64);
        if size > Self::LARGEST {
            return Err(CheckpointTooLarge(size));
        }
        self.kept.send_replace(Some(checkpoint));
        Ok(())
    }

    /// What was kept last.
    pub fn kept(&self) -> Option<Vec<u8>> {
        self.kept.borrow().clone()
    }

    /// What is kept from now on.
    pub fn watch_kept(&self) -> watch::Receiver<Option<Vec<u8>>> {
        self.kept.subscribe()
    }
}

impl fmt::Debug for Checkpoint {
    /// Sizes: what it says is the task's alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept.borrow().as_ref().map(Vec::len);
        f.debug_struct("Checkpoint").field("given", &self.given.as_ref().map(|g| g.len())).field("kept", &kept).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_was_kept_counts_and_too_large_a_one_changes_nothing() {
        let checkpoint = Checkpoint::of(vec![1]);
        assert_eq!((checkpoint.given(), checkpoint.kept()), (Some(&[1][..]), None));
        checkpoint.keep(vec![2]).unwrap();
        checkpoint.clone().keep(vec![3]).unwrap();
        let large = vec![0; usize::try_from(Checkpoint::LARGEST.0).unwrap() + 1];
        let error = checkpoint.keep(large).unwrap_err();
        assert!(error.to_string().contains("16MiB") || error.to_string().contains("16 MiB"), "{error}");
        assert_eq!(checkpoint.kept(), Some(vec![3]));
        assert!(!format!("{checkpoint:?}").contains("[3]"));
    }
}
