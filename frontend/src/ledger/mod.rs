//! The ledger: the durable truth about requests, plans, shards, attempts and events.
//!
//! # Map
//!
//! - `contract`: the [`Ledger`] trait and what goes in and out.
//! - `state`: a shard's life: one enum, one transition function.
//! - `decision`: what was decided about shards that did not go their way; `dead`: shards that failed for good.
//! - `retry`: the [`RetryPolicy`] that decides, inside the ledger's transaction, what follows a failure.
//! - `sqlite`: the ledger in SQLite: one writer thread with group commit, and its tables.
//!
//! # What always holds
//!
//! Whatever a call answered with `Ok` is on disk. An attempt is minted here and nowhere else. A shard succeeds once:
//! the first success that is committed wins, and every other run is only recorded.

mod contract;
mod dead;
mod decision;
mod event;
mod retry;
pub mod sqlite;
mod state;

pub use contract::*;
pub use dead::{DeadListing, DeadShard, NotDead, Replay};
pub use decision::{Decided, Decision, DecisionKind, RecordedDecision, RecordedStage, StageForecast};
pub use event::{EventKind, InvalidEvent, RunEvent};
pub use retry::{Counters, Failure, NextStep, RetryPolicy};
pub use state::{Refused, ShardEvent, ShardState};
