//! The worker: offers, claims, runners, enforcement, load reports.
//!
//! # Map, in the order in which a shard passes through
//!
//! - `queues`: the queues that offer; [`assignment`]: what a shard's message asks for.
//! - `claimer`: the one owner of what is in flight; [`leases`]: held parts of the pool; `live_runs`.
//! - `run`: one run, from the lease to the confirmed completion; [`stop`]: why one ends early; `prefix_acks`: of those
//!   that are acknowledged at their end.
//! - [`adjustment`]: leases and limits that follow what runs really use.
//! - `demand`: what is expected to start here soon, and may be made ready.
//! - [`execution`]: the seam to whatever runs it.
//! - `completion`, [`events`]: what ledgers hear of it, in batches that are kept until they are confirmed.
//! - [`report`], with [`node`]: load reports; `control`: what the frontend tells the fleet.
//! - `sweeper`: what crashed workers and losing runs left.
//! - `app`, [`options`], [`preparation`]: how all this is built, run and drained; [`worker`]: as a library.
//!
//! # What always holds
//!
//! - The sum of all leases is at most the capacity; every lease is given back exactly once.
//! - An offer is acknowledged only after the broker has the claim for the ledger, or, of a `tiny` shard, its completion;
//!   from then on the ledger answers for the shard. So nothing is lost with a worker.
//! - How a run ended is published until it is confirmed, as long as the process lives.

pub mod adjustment;
mod app;
pub mod assignment;
mod backoff;
pub mod capacity_argument;
mod claimer;
pub mod clock;
mod completion;
mod control;
pub mod crash_points;
mod demand;
pub mod enforcement;
pub mod events;
pub mod execution;
pub mod leases;
mod live_runs;
pub mod metric_definitions;
pub mod node;
pub mod options;
mod prefix_acks;
pub mod preparation;
mod queues;
pub mod report;
mod run;
pub mod runner;
#[cfg(test)]
mod sample;
pub mod stop;
mod sweeper;
pub mod tasks;
pub mod worker;

pub use adjustment::Allocation;
pub use app::LeftUnconfirmed;
pub use execution::{Ending, Execution, Executor, UsageNow};
pub use options::WorkerOptions;
pub use preparation::{Preparation, WrongOptions};
pub use stop::{StopReason, StopSignal};
pub use worker::{Worker, WorkerBuilder};
