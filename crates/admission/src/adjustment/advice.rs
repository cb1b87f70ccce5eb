//! What is to be done with a run.

use std::fmt;
use std::time::Duration;

use forecastle_resources::{CpuMillis, ResourceVector};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Keep,
    /// The lease grows to this, then the limits.
    Grow(ResourceVector),
    /// The limits shrink to this, then the lease.
    Shrink(ResourceVector),
    /// It is held to this much CPU, whatever its lease holds, until [`Change::Unthrottle`].
    Throttle(CpuMillis),
    /// It is no longer held back.
    Unthrottle,
    /// It is ended and run again elsewhere, as preempted.
    Stop,
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing has changed.
    Steady,
    /// Its memory comes close to its limit.
    MemoryNearLimit,
    /// It uses all the CPU or I/O that it holds.
    Saturated,
    /// It has not used what it holds, and is not expected to.
    NotNeeded,
    /// What it held beyond its reservation is wanted by shards that wait.
    Wanted,
    /// It needs memory that the worker does not have free.
    MemoryShort,
    /// Another run needs the memory that it holds.
    MakesWay,
    /// The machine as a whole is short of memory.
    MachineShort,
}

impl Reason {
    /// The name in events and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::MemoryNearLimit => "memory-near-limit",
            Self::Saturated => "saturated",
            Self::NotNeeded => "not-needed",
            Self::Wanted => "wanted",
            Self::MemoryShort => "memory-short",
            Self::MakesWay => "makes-way",
            Self::MachineShort => "machine-short",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What is to be done, why, and when to look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What.
    pub change: Change,
    /// Why.
    pub reason: Reason,
    /// When the next sample is due.
    pub next: Duration,
}
