//! Shards that failed for good.

use forecastle_protos::ids::{RequestId, ShardId};
use forecastle_protos::v1;

use super::Counters;

/// A dead shard.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadShard {
    /// Its place in the order of deaths; never reused.
    pub seq: i64,
    /// The shard.
    pub shard: ShardId,
    /// The type of its request.
    pub request_type: String,
    /// Its stage's name.
    pub stage: String,
    /// Its unit.
    pub unit: String,
    /// Why.
    pub reason: v1::ErrorDetail,
    /// When, milliseconds since 1970.
    pub died_ms: u64,
    /// Attempts ordered so far.
    pub attempts: u32,
    /// How they ended, since the shard was made or last replayed.
    pub counters: Counters,
}

/// Which dead shards to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadListing {
    /// Of this tenant only.
    pub tenant: String,
    /// Of this request type only.
    pub request_type: Option<String>,
    /// With this code only.
    pub reason: Option<String>,
    /// Dead since before this time only, milliseconds since 1970.
    pub died_before_ms: Option<u64>,
    /// Older than this (a `next_cursor`).
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// Why a shard cannot be replayed or purged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotDead {
    /// It is not among the dead: it never was, or it was replayed, purged or forgotten with its request.
    #[error("shard {0} is not dead")]
    Unknown(ShardId),
    /// Its request takes no attempt any more.
    #[error("shard {shard} cannot be replayed: {reason}")]
    NotReplayable {
        /// The shard.
        shard: ShardId,
        /// Why.
        reason: String,
    },
}

/// A replay that was ordered.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// The request that runs again.
    pub request: RequestId,
    /// The attempt that follows.
    pub attempt: u32,
    /// What it means for everyone else.
    pub changes: super::Changes,
}

impl From<&DeadShard> for v1::DeadShard {
    fn from(dead: &DeadShard) -> Self {
        let counters = dead.counters;
        Self {
            shard_id: dead.shard.to_string(),
            request_id: dead.shard.request.to_string(),
            request_type: dead.request_type.clone(),
            stage: dead.stage.clone(),
            unit: dead.unit.clone(),
            reason: Some(dead.reason.clone()),
            died_unix_ms: dead.died_ms,
            attempts: dead.attempts,
            failures: Some(v1::FailureCounts {
                errors: counters.errors,
                out_of_memory: counters.out_of_memory,
                timeouts: counters.timeouts,
                lost: counters.lost,
                returned: counters.returned,
                uncounted: counters.uncounted,
            }),
            runs: Vec::new(),
            decisions: Vec::new(),
        }
    }
}
