//! What is set aside for one attempt of a shard.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ResourceVector;

/// A vector and how long it is expected to be held.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reservation {
    /// What is held.
    pub vector: ResourceVector,
    /// For how long, as predicted; not a limit.
    pub duration: Duration,
}

impl Reservation {
    /// A reservation of `vector` for `duration`.
    pub const fn new(vector: ResourceVector, duration: Duration) -> Self {
        Self { vector, duration }
    }
}

impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {:.1?}", self.vector, self.duration)
    }
}
