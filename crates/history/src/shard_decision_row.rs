//! A row of `shard_decisions`: what was decided about a shard that did not go its way.

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::writer::{HistoryRow, check_time};

/// One decision. Field names are the table's columns.
#[derive(Debug, Clone, PartialEq, Default, Row, Serialize, Deserialize)]
pub struct ShardDecisionRow {
    /// The request.
    #[serde(with = "clickhouse::serde::uuid")]
    pub request_id: Uuid,
    /// The shard, `<request>.<stage>.<index>`.
    pub shard_id: String,
    /// The attempt, from 1; 0 if none was ever ordered.
    pub attempt: u32,
    /// The run; nil if it is about none.
    #[serde(with = "clickhouse::serde::uuid")]
    pub run_id: Uuid,
    /// The worker; nil if none is concerned.
    #[serde(with = "clickhouse::serde::uuid")]
    pub worker_id: Uuid,
    /// Whose request.
    pub tenant: String,
    /// The request type; never empty.
    pub request_type: String,
    /// The unit.
    pub unit: String,
    /// `lost`, `overdue`, `late`, `stuck`, `poisoned`, `dead`, `replayed`, `purged`.
    pub kind: String,
    /// Milliseconds since 1970, by the frontend's clock.
    pub at: i64,
    /// Why, in a sentence.
    pub why: String,
    /// What was seen, as JSON.
    pub evidence: String,
}

impl HistoryRow for ShardDecisionRow {
    const TABLE: &'static str = "shard_decisions";

    fn check(&self) -> Result<(), (&'static str, String)> {
        for (field, text) in [("shard_id", &self.shard_id), ("request_type", &self.request_type), ("kind", &self.kind)]
        {
            if text.is_empty() {
                return Err((field, "it is empty".to_owned()));
            }
        }
        check_time("at", self.at)
    }

    fn identity(&self) -> impl AsRef<[u8]> {
        format!("{} {} {} {}", self.shard_id, self.attempt, self.kind, self.run_id)
    }
}
