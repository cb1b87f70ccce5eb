//! What can go wrong with the kernel's limits.

use std::io;
use std::path::PathBuf;

use crate::enforcement::options::Mechanism;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum EnforcementError {
    /// The kernel refused.
    #[error("cannot {action} {}", .path.display())]
    Control {
        /// What was tried: `read`, `create`, …
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it was refused.
        #[source]
        source: io::Error,
    },
    /// A file of the kernel does not say what it should.
    #[error("{} makes no sense: {reason}", .path.display())]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// This machine, or this process, cannot use the mechanism.
    #[error("{mechanism} cannot be used: {reason}")]
    Unavailable {
        /// The mechanism.
        mechanism: Mechanism,
        /// Why, and what would help.
        reason: String,
    },
}

impl EnforcementError {
    pub(crate) fn control(action: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Control { action, path: path.into(), source: source.into() }
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub(crate) fn errno(&self) -> Option<rustix::io::Errno> {
        match self {
            Self::Control { source, .. } => rustix::io::Errno::from_io_error(source),
            Self::Unexpected { .. } | Self::Unavailable { .. } => None,
        }
    }

    /// True if it may pass: whatever the kernel refused. What a machine lacks, it goes on lacking.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Control { .. })
    }
}
