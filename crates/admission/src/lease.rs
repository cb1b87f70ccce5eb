//! What is asked of a pool, and what is held of it.

use std::fmt;
use std::time::Duration;

use forecastle_resources::{Priority, ResourceVector};

use crate::time::Time;

/// A lease's identity, never used twice by one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub(crate) u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {}", self.0)
    }
}

/// What is asked of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose share it counts against.
    pub priority: Priority,
    /// All of it, or nothing.
    pub vector: ResourceVector,
    /// How long it will be held with a probability of 95 %.
    pub predicted_end_after: Duration,
}

/// A held part of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its identity.
    pub id: LeaseId,
    /// Whose share it counts against.
    pub priority: Priority,
    /// What it holds now.
    pub vector: ResourceVector,
    /// Since when.
    pub since: Time,
    /// Until when, with a probability of 95 % as predicted at `since`.
    pub predicted_end: Time,
    /// True if it was predicted to end within the lending horizon, so that it may hold what is guaranteed to others.
    pub may_borrow: bool,
}

impl Lease {
    /// True once it should have ended.
    pub fn is_overdue(&self, now: Time) -> bool {
        now >= self.predicted_end
    }

    /// When it is expected to end, seen from `now`. One that outlived its prediction is expected to run over by as
    /// much again (predictions that are corrected when they prove wrong make backfill dependable: Tsafrir, Etsion,
    /// Feitelson, "Backfilling using system-generated predictions rather than user runtime estimates", IEEE TPDS
    /// 18(6), 2007).
    pub fn expected_end(&self, now: Time) -> Time {
        if self.is_overdue(now) { now.after(now.since(self.predicted_end)) } else { self.predicted_end }
    }
}
