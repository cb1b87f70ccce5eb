//! Leases and limits that follow what runs really use.
//!
//! # Map
//!
//! - [`options`]: how it is configured, [`AdjustmentOptions`].
//! - [`adjuster`]: [`Adjuster`], the worker's one governor (the pure policy of `forecastle-admission`) over its leases.
//! - [`allocation`]: [`Allocation`], what one run holds, told to whoever watches, and the record of its changes.
//! - [`follower`]: [`Follower`], which samples go to and which makes what is advised come true.
//! - [`allocation_file`]: what a command can read of it.
//!
//! # What always holds
//!
//! A lease is at no time less than the limits in the kernel: it grows before them and shrinks after them, and where a
//! step fails the lease stays as large as the limits may be.

pub mod adjuster;
pub mod allocation;
pub mod allocation_file;
pub mod follower;
pub mod options;

pub use adjuster::Adjuster;
pub use allocation::{Allocation, HeldRecord};
pub use allocation_file::AllocationFile;
pub use follower::{Bounds, Follower};
pub use options::AdjustmentOptions;
