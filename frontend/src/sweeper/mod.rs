//! The sweeper: finds what will not go on by itself, decides what becomes of it, and repeats to the fleet which runs are
//! to stop.
//!
//! # Map
//!
//! - `judge`: pure: what the ledger and the load reports say, against each other, and the decisions that follow.
//! - `suspicion`: how often and for how long something must look wrong before it is.
//! - `service`: looks, has the ledger carry out the decisions, tells everyone.
//!
//! # What always holds
//!
//! It takes no input but the ledger, the load reports and the depth of queues, and doing the same twice changes nothing:
//! a decision is carried out and logged in one transaction of the ledger, which leaves out what a worker's own word has
//! overtaken. Nothing is decided by a message's age alone, nor while nobody can be heard. Time that decides is
//! monotonic: a machine's clock may jump.

mod judge;
mod service;
mod suspicion;

pub use service::{READER, Sweeper};
