//! Leases that follow what their runs really use.
//!
//! # Map
//!
//! - [`policy`]: [`AdjustmentPolicy`], the numbers, and what they guarantee.
//! - [`subject`]: [`Subject`], what is known of a run before it starts: what it reserved, its bounds, its forecast.
//! - [`usage`]: [`UsageSample`], and what is kept of the samples of one run.
//! - [`advice`]: [`Advice`], what is to be done, why, and when to look again.
//! - `sizing`: from what was seen of one run to the size of its lease.
//! - [`governor`]: [`Governor`], all runs of a worker: who grows, who shrinks, and who makes way when memory is short.
//!
//! # What always holds
//!
//! - A lease never shrinks below the most that was seen of its run plus the margin, nor below its unit's minimum.
//! - A lease grows only into what the pool has free for it, and never above its unit's maximum or its own reservation,
//!   whichever is more.
//! - After a lease has shrunk it grows again only if its run uses more than it ever did before; so no load, however it
//!   alternates, makes a lease alternate for ever.
//! - Only batch runs make way, the one that has done least first.

pub mod advice;
pub mod governor;
pub mod policy;
mod sizing;
pub mod subject;
pub mod usage;

pub use advice::{Advice, Change, Reason};
pub use governor::Governor;
pub use policy::AdjustmentPolicy;
pub use subject::{Need, Subject};
pub use usage::UsageSample;
