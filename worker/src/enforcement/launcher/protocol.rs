//! What worker and supervisor tell each other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What to start. Before it go three [descriptors](super::descriptors): standard input, output and error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchOrder {
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// The whole environment.
    pub environment: BTreeMap<String, String>,
    /// The working directory.
    pub directory: PathBuf,
}

/// What the worker writes after the order to tell the command to end: SIGTERM to its process group. Closing the socket
/// is the order to kill.
pub const TELL_TO_END: &[u8] = b"end\n";

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaunchReport {
    /// The command ran, and all that it started is gone.
    Ended(Ended),
    /// The command was never reached.
    Failed(LaunchFailure),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The exit code, unless a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What the kernel says of it and of its descendants.
    pub usage: ChildUsage,
    /// Processes that outlived the command and were killed.
    pub left_behind: u32,
    /// Processes that cannot be killed (stuck in the kernel) and are still there.
    pub immortal: u32,
    /// It had been told to end before it did: so its exit code says nothing of its work.
    #[serde(default)]
    pub told_to_end: bool,
}

/// `getrusage(RUSAGE_CHILDREN)` of the supervisor, whose only children are the command and what it left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChildUsage {
    /// The largest resident set of any one process, in bytes.
    pub largest_resident_bytes: u64,
    /// User and system time of all processes that were waited for, in microseconds.
    pub cpu_microseconds: u64,
    /// Bytes read from block devices.
    pub read_bytes: u64,
    /// Bytes written to files on block devices, when they were written (not when they reach the device).
    pub written_bytes: u64,
}

/// What a command could not be started for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct LaunchFailure {
    /// In which step.
    pub step: LaunchStep,
    /// The kernel's error number, or 0.
    pub errno: i32,
    /// What failed, in words.
    pub message: String,
}

/// The steps of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaunchStep {
    /// Until there is a process for the command.
    Prepare,
    /// Joining the cage.
    Join,
    /// Becoming the program.
    Execute,
}

impl LaunchFailure {
    pub(crate) fn new(step: LaunchStep, what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        Self { step, errno: error.raw_os_error().unwrap_or(0), message: format!("{what}: {error}") }
    }
}
