//! The frontend: requests come in, shards go out, completions come back, and the ledger is the truth about all of it.
//!
//! # Map, in the order in which a request passes through
//!
//! - [`ingress`]: HTTP and AMQP; [`intake`]: checks a submission and admits it.
//! - [`ledger`]: the durable record.
//! - [`planner`], with [`analysis`] and [`roots`]: looks at the input and records a plan.
//! - [`dispatcher`], with [`forecasting`] and [`fleet`]: sizes what is ready and releases what the fleet can run soon.
//! - [`demand`]: what is expected to start soon, for the workers to make ready.
//! - [`completions`], [`returned`]: what workers and the broker answer; [`failure_policy`]: what follows a failure.
//! - [`effects`]: what a committed change means for everyone else; [`control`], [`replies`]: workers and producers.
//! - [`sweeper`]: what is lost, late or stuck; [`allocations`]: who holds what; [`refusals`]: what nobody could hold.
//! - [`profiles`], [`sink`] with [`warehouse`]: events, after their commit, to the forecaster and to ClickHouse.
//! - [`services`]: all of these between a ledger and a broker; [`app`], [`options`]: the process around them.
//!
//! # What always holds
//!
//! Nothing is acknowledged before the ledger has committed it, and nobody is told of a change before its commit. After
//! a crash everything unfinished is read from the ledger again.

pub mod allocations;
pub mod analysis;
pub mod app;
pub mod catalogue_store;
pub mod clock;
pub mod completions;
pub mod control;
pub mod crash_points;
pub mod demand;
pub mod dispatcher;
pub mod effects;
pub mod failure_policy;
pub mod fleet;
pub mod forecasting;
pub mod ingress;
pub mod intake;
pub mod ledger;
pub mod metric_definitions;
pub mod mutants;
pub mod options;
pub mod planner;
pub mod profiles;
pub mod refusals;
pub mod replies;
pub mod returned;
pub mod roots;
pub mod services;
pub mod sink;
pub mod stray;
pub mod sweeper;
pub mod tokens;
pub mod warehouse;
