//! Pure: the worker's resource pool and the choice among offers.
//!
//! # Map
//!
//! - [`time`]: [`Time`], an instant that the caller hands in.
//! - [`shares`]: [`Shares`], what of the capacity is guaranteed to a priority, and the most it may hold.
//! - [`lease`]: [`Claim`], what is asked of the pool; [`Lease`] and [`LeaseId`], a part of it that is held.
//! - [`pool`]: [`Pool`], acquire, resize and release, all or nothing.
//! - `lending`: guaranteed parts that are not used are lent for a while; which borrowers to stop when they overrun.
//! - `backfill`: the predicted start of a claim that does not fit now.
//! - [`choice`]: [`choose`], which offer to claim, hand back, or leave waiting, and why.
//! - [`desk`]: [`Desk`], what a worker has in hand of each queue, and what it does next.
//! - [`simulation`]: fleets of workers that run this very code, on the broker's rules, without a clock.
//! - [`preallocation`]: how many starts to prepare for the work that is expected.
//! - [`adjustment`]: leases that follow what their runs really use, and who makes way when memory is short.
//!
//! # What always holds
//!
//! - Free + held = capacity, by component, after every operation; so capacity is never exceeded.
//! - A lease ends exactly once: its id is never used again, and releasing it a second time is an error.
//! - An operation that answers anything but success changes nothing.
//! - What is guaranteed to a priority and not used by it is held by others only through leases that were predicted to
//!   end within the lending horizon.
//! - No clock, no randomness, no I/O: the same calls give the same answers.

pub mod adjustment;
mod backfill;
pub mod choice;
pub mod desk;
pub mod lease;
mod lending;
pub mod pool;
pub mod preallocation;
pub mod shares;
pub mod simulation;
pub mod time;

pub use adjustment::{AdjustmentPolicy, Advice, Change, Governor, Need, Subject, UsageSample};
pub use choice::{ClaimPolicy, Decision, FutureStart, Offer, Reason, Waiting, choose};
pub use desk::{Arrival, Desk, DeskOptions, HandBack, LONGEST_IN_DEEP_WINDOW, QueueIndex, Step};
pub use lease::{Claim, Lease, LeaseId};
pub use pool::{Acquisition, Pool, ResizeError, UnknownLease};
pub use shares::{Shares, SharesError};
pub use time::Time;
