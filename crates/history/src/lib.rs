//! ClickHouse: migrations, batch writer, views and queries.
//!
//! # Map
//!
//! - [`options`]: [`HistoryOptions`], where ClickHouse is and how long history is kept.
//! - [`history`]: [`History`], the handle on one database: migrate, write, ask.
//! - [`migrations`]: ordered, embedded SQL; [`statements`] splits it.
//! - [`retention`]: how long rows live.
//! - [`writer`]: [`HistoryWriter`], one insert for each batch, safe to repeat.
//! - [`run_row`], [`shard_decision_row`], [`load_sample_row`], [`plan_row`]: what is written; [`outcome`]: the names of outcomes.
//! - [`queries`]: what the command line, the demo and the tests ask.
//! - [`error`]: [`Error`], and whether trying again can help.
//! - [`metric_definitions`]: names and descriptions of the metrics of this crate.
//!
//! # What always holds
//!
//! History is keyed by run. Rows of one run have the same sorting key and partition whatever else they say, because
//! both are functions of the run id; so a run counts once in every view and query, the row with the highest ledger
//! sequence number standing for it. Writing the same batch again changes nothing. No error names a password.
//!
//! # What it does not do
//!
//! It neither retries nor buffers: who writes keeps the batch until it is accepted.

mod connection;
pub mod error;
mod fingerprint;
pub mod history;
pub mod load_sample_row;
pub mod metric_definitions;
pub mod migrations;
pub mod options;
pub mod outcome;
pub mod plan_row;
mod quantity_column;
pub mod queries;
pub mod retention;
pub mod run_row;
pub mod shard_decision_row;
pub mod statements;
mod tls;
pub mod writer;

pub use error::Error;
pub use history::History;
pub use load_sample_row::LoadSampleRow;
pub use migrations::MigrationReport;
pub use options::{HistoryOptions, Password, Tls};
pub use plan_row::PlanRow;
pub use queries::{RequestSummary, UnitComparison};
pub use run_row::RunRow;
pub use shard_decision_row::ShardDecisionRow;
pub use writer::HistoryWriter;
