//! A row of `runs`: everything a completion event says, and what the ledger made of it.

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::outcome;
use crate::writer::{HistoryRow, check_time};

/// One run. Field names are the table's columns, so bare numbers carry their unit in their name.
#[derive(Debug, Clone, PartialEq, Default, Row, Serialize, Deserialize)]
pub struct RunRow {
    /// Minted by the worker, a UUID of version 7; the key of history.
    #[serde(with = "clickhouse::serde::uuid")]
    pub run_id: Uuid,
    /// The request.
    #[serde(with = "clickhouse::serde::uuid")]
    pub request_id: Uuid,
    /// The shard, `<request>.<stage>.<index>`.
    pub shard_id: String,
    /// Minted by the ledger, from 1.
    pub attempt: u32,
    /// One life of one worker process.
    #[serde(with = "clickhouse::serde::uuid")]
    pub worker_id: Uuid,
    /// Whose request.
    pub tenant: String,
    /// The request type; never empty, also for runs whose worker never spoke.
    pub request_type: String,
    /// The stage's name.
    pub stage: String,
    /// The unit; never empty.
    pub unit: String,
    /// `urgent`, `standard`, `batch`.
    pub priority: String,
    /// `tiny`, `S`, `M`, `L`, `XL`.
    pub size_class: String,
    /// One of [`outcome::ALL`].
    pub outcome: String,
    /// What went wrong; empty after a success.
    pub error: String,
    /// Exit status, -1 if there was none.
    pub exit_code: i32,
    /// The signal that ended it, 0 if none.
    pub signal: i32,
    /// Reserved CPU in thousandths of a core.
    pub reserved_cpu_millis: u64,
    /// Reserved memory.
    pub reserved_memory_bytes: u64,
    /// Reserved I/O rate.
    pub reserved_io_bytes_per_second: u64,
    /// Reserved scratch disk.
    pub reserved_scratch_bytes: u64,
    /// Predicted duration.
    pub reserved_duration_ms: u64,
    /// Largest memory used.
    pub used_memory_bytes: u64,
    /// User and system time.
    pub used_cpu_ms: u64,
    /// Read from block devices.
    pub io_read_bytes: u64,
    /// Written to block devices.
    pub io_write_bytes: u64,
    /// Wall-clock time from start to exit.
    pub duration_ms: u64,
    /// How use was measured: `cgroup-v1`, `cgroup-v2`, `rusage`, `in-process`.
    pub usage_source: String,
    /// Milliseconds since 1970, by the worker's clock; 0 if it never started.
    pub started_at: i64,
    /// Milliseconds since 1970, by the worker's clock, or the ledger's for a lost run.
    pub ended_at: i64,
    /// From release to claim.
    pub waited_ms: u64,
    /// What kind of machine.
    pub node_class: String,
    /// Size of the shard's input.
    pub input_bytes: u64,
    /// Items of the shard's input.
    pub input_items: u32,
    /// What the forecast came from: `declared`, `profile`, `model`, `default`.
    pub forecast_source: String,
    /// The version of the profile or model; may be empty.
    pub model_version: String,
    /// The quantile of memory that the reservation stands for.
    pub quantile: f64,
    /// The probabilities of the forecast's quantiles; the other `need_` lists run in parallel.
    pub need_probability: Vec<f64>,
    /// Mean CPU in thousandths of a core.
    pub need_cpu_millis: Vec<f64>,
    /// Largest memory.
    pub need_memory_bytes: Vec<f64>,
    /// Mean I/O rate.
    pub need_io_bytes_per_second: Vec<f64>,
    /// Duration.
    pub need_duration_ms: Vec<f64>,
    /// Memory of this attempt and of those that would follow a kill for memory.
    pub memory_ladder_bytes: Vec<u64>,
    /// When the lease changed, milliseconds since 1970; the other `adjusted_` lists run in parallel.
    pub adjusted_at: Vec<i64>,
    /// How: `grow`, `shrink`, `throttle`, `unthrottle`, `stop`.
    pub adjusted_change: Vec<String>,
    /// Why.
    pub adjusted_reason: Vec<String>,
    /// CPU that the lease held after each change.
    pub adjusted_cpu_millis: Vec<u64>,
    /// Memory that it held then.
    pub adjusted_memory_bytes: Vec<u64>,
    /// I/O rate that it held then.
    pub adjusted_io_bytes_per_second: Vec<u64>,
    /// Changes that are not in the lists.
    pub further_adjustments: u32,
    /// Memory held, summed over the time of the run; 0 if the worker does not say.
    pub held_memory_byte_seconds: f64,
    /// CPU held, summed over the time of the run, in cores times seconds; 0 if the worker does not say.
    pub held_core_seconds: f64,
    /// True if the ledger committed this run as the success of its shard.
    pub winning: bool,
    /// The ledger's number of this word about the run; of two rows of a run the higher counts.
    pub ledger_seq: u64,
}

impl HistoryRow for RunRow {
    const TABLE: &'static str = "runs";

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.run_id.is_nil() {
            return Err(("run_id", "it is missing".to_owned()));
        }
        if self.request_type.is_empty() {
            return Err(("request_type", "it is empty".to_owned()));
        }
        if self.unit.is_empty() {
            return Err(("unit", "it is empty".to_owned()));
        }
        if !outcome::ALL.contains(&self.outcome.as_str()) {
            return Err(("outcome", format!("`{}` is none of {}", self.outcome, outcome::ALL.join(", "))));
        }
        if self.winning && self.outcome != outcome::SUCCEEDED {
            return Err(("winning", format!("a run that ended as {} cannot win", self.outcome)));
        }
        check_time("started_at", self.started_at)?;
        check_time("ended_at", self.ended_at)?;
        let quantiles = self.need_probability.len();
        for (field, values) in [
            ("need_cpu_millis", &self.need_cpu_millis),
            ("need_memory_bytes", &self.need_memory_bytes),
            ("need_io_bytes_per_second", &self.need_io_bytes_per_second),
            ("need_duration_ms", &self.need_duration_ms),
        ] {
            if values.len() != quantiles {
                return Err((field, format!("it has {} entries for {quantiles} probabilities", values.len())));
            }
        }
        let changes = self.adjusted_at.len();
        for (field, entries) in [
            ("adjusted_change", self.adjusted_change.len()),
            ("adjusted_reason", self.adjusted_reason.len()),
            ("adjusted_cpu_millis", self.adjusted_cpu_millis.len()),
            ("adjusted_memory_bytes", self.adjusted_memory_bytes.len()),
            ("adjusted_io_bytes_per_second", self.adjusted_io_bytes_per_second.len()),
        ] {
            if entries != changes {
                return Err((field, format!("it has {entries} entries for {changes} changes")));
            }
        }
        self.adjusted_at.iter().try_for_each(|at| check_time("adjusted_at", *at))
    }

    fn identity(&self) -> impl AsRef<[u8]> {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(self.run_id.as_bytes());
        bytes[16..].copy_from_slice(&self.ledger_seq.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> RunRow {
        RunRow {
            run_id: Uuid::now_v7(),
            request_type: "archive".to_owned(),
            unit: "compress".to_owned(),
            outcome: outcome::SUCCEEDED.to_owned(),
            winning: true,
            ..RunRow::default()
        }
    }

    #[test]
    fn each_wrong_field_is_named() {
        assert_eq!(good().check(), Ok(()));
        for (field, row) in [
            ("run_id", RunRow { run_id: Uuid::nil(), ..good() }),
            ("request_type", RunRow { request_type: String::new(), ..good() }),
            ("unit", RunRow { unit: String::new(), ..good() }),
            ("outcome", RunRow { outcome: "SUCCEEDED".to_owned(), ..good() }),
            ("winning", RunRow { outcome: outcome::TIMEOUT.to_owned(), ..good() }),
            ("started_at", RunRow { started_at: -1, ..good() }),
            ("ended_at", RunRow { ended_at: i64::MAX, ..good() }),
            ("need_memory_bytes", RunRow { need_memory_bytes: vec![1.0], ..good() }),
            ("adjusted_reason", RunRow { adjusted_reason: vec!["x".to_owned()], ..good() }),
        ] {
            assert_eq!(row.check().unwrap_err().0, field);
        }
    }
}
