//! Pure: from a request type and its analysed input to a plan of stages and shards.
//!
//! # Map
//!
//! - [`planner`]: [`plan()`], the whole way.
//! - [`mod@plan`]: [`Plan`], [`PlannedStage`], [`PlannedShard`]: what the ledger commits and never recomputes.
//! - [`mod@balance`]: items into shards of about equal size.
//! - [`error`]: [`PlanError`], why there is no plan.
//!
//! Three shapes of work come out of it: data partitioning (one unit over items), functional decomposition (several
//! units, each once), and both (several units over items), in stages that wait for others.
//!
//! What a shard reserves and the class it travels in are decided later, from a forecast.
//!
//! # What always holds
//!
//! - No clock, no randomness, no IO: the same request type and items, in whatever order, make the same plan.
//! - In a stage over items, every item that a unit accepts is in exactly one of that unit's shards; none is empty.
//! - No shard has more items, and no unit more shards in a stage, than the stage's bounds say.
//! - Of one unit's shards in one stage, the largest is larger than the smallest by no more than the largest item.
//! - Nothing overflows: sums that do not fit saturate.

pub mod balance;
pub mod error;
pub mod plan;
pub mod planner;

pub use balance::balance;
pub use error::PlanError;
pub use plan::{Item, Plan, PlannedShard, PlannedStage};
pub use planner::{PlanInput, plan};
