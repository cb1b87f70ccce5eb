//! Fleets in a simulation: many workers, each with the [`Desk`](crate::desk::Desk) and the [`Pool`](crate::pool::Pool)
//! that the real one has, on shard queues that behave like the broker's.
//!
//! - [`load`]: [`Job`], what is released when, and loads to try.
//! - [`trace`]: recorded loads.
//! - `queue`: a quorum queue with consumers of a window of one.
//! - [`fleet`]: [`Fleet`] and its run, event by event.
//! - [`packer`]: [`pack`], a clairvoyant packer to compare with.
//! - [`report`]: [`Report`], what came of it.
//!
//! Time is simulated, chance comes from seeds: the same fleet and load give the same report.

pub mod fleet;
pub mod load;
pub mod packer;
mod queue;
pub mod report;
pub mod trace;

pub use fleet::Fleet;
pub use load::Job;
pub use packer::pack;
pub use report::{Operations, Report};
