//! What is known of a run before it starts.

use std::time::Duration;

use forecastle_resources::{Bytes, Priority, ResourceVector};

use crate::time::Time;

/// What a run was forecast to need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Need {
    /// Memory that half of such runs exceed, if the forecast knows how they are spread. A declared reservation says
    /// nothing of that: it is an upper bound.
    pub typical_memory: Option<Bytes>,
    /// How long such runs take; half of them where that is known.
    pub duration: Duration,
}

/// One run that is to be adjusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Whose share it counts against. Only batch makes way for others.
    pub priority: Priority,
    /// What its lease held at first.
    pub reserved: ResourceVector,
    /// The least that its unit ever reserves.
    pub minimum: ResourceVector,
    /// The most that its unit ever reserves; entries that are zero are not bounded.
    pub maximum: ResourceVector,
    /// True if its memory is limited, so that it is killed at its limit. Else its memory is left as it is.
    pub memory_is_limited: bool,
    /// True if its CPU is limited (a quota): else it takes more than it holds while others leave theirs idle, and has no
    /// use for a larger lease.
    pub cpu_is_limited: bool,
    /// What it was forecast to need.
    pub need: Need,
}

impl Subject {
    /// The most memory that its lease may hold.
    pub(crate) fn most_memory(&self) -> Bytes {
        match self.maximum.memory {
            Bytes::ZERO => Bytes(u64::MAX),
            most => most.max(self.reserved.memory),
        }
    }

    /// How much longer a run that started at `since` is expected to go on. One that outlived its prediction is expected
    /// to run over by as much again, as in [`Lease::expected_end`](crate::Lease::expected_end).
    pub(crate) fn remaining(&self, since: Time, now: Time) -> Duration {
        let elapsed = now.since(since);
        elapsed.abs_diff(self.need.duration)
    }
}
