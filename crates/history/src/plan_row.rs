//! A row of `plans`: what a request was broken into.

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::writer::{HistoryRow, check_time};

/// One plan. Field names are the table's columns, so bare numbers carry their unit in their name.
#[derive(Debug, Clone, PartialEq, Default, Row, Serialize, Deserialize)]
pub struct PlanRow {
    /// The request.
    #[serde(with = "clickhouse::serde::uuid")]
    pub request_id: Uuid,
    /// The request type; never empty.
    pub request_type: String,
    /// Whose request.
    pub tenant: String,
    /// `urgent`, `standard`, `batch`.
    pub priority: String,
    /// Stages of the plan.
    pub stages: u32,
    /// Shards over all stages.
    pub shards: u32,
    /// Items of the input.
    pub input_items: u64,
    /// Size of the input.
    pub input_bytes: u64,
    /// When it was planned, in milliseconds since 1970.
    pub at: i64,
}

impl HistoryRow for PlanRow {
    const TABLE: &'static str = "plans";

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.request_id.is_nil() {
            return Err(("request_id", "it is missing".to_owned()));
        }
        if self.request_type.is_empty() {
            return Err(("request_type", "it is empty".to_owned()));
        }
        check_time("at", self.at)
    }

    fn identity(&self) -> impl AsRef<[u8]> {
        *self.request_id.as_bytes()
    }
}
