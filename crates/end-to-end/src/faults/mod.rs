//! Runs of real systems under faults: real programs, real servers, real kernel.
//!
//! # Map, in the order in which a run goes
//!
//! - [`plan`]: the faults of a run, and when.
//! - [`disaster`]: one run: starts a system, submits, makes the faults, restarts what died, until all has ended.
//! - [`means`]: how faults are made: a small disk, a clock that can be set, processes that are found and killed.
//! - [`inspection`]: what must hold afterwards, in the ledger, in ClickHouse and on the machine.

pub mod disaster;
pub mod inspection;
pub mod means;
pub mod plan;
