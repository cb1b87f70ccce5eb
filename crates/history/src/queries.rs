//! What the command line, the demo and the tests ask. Every answer counts a run once.
//!
//! GB·s is 10⁹ bytes held for a second; core·s is one core held for a second.

use clickhouse::Row;
use forecastle_resources::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::quantity_column::bytes;
use crate::{Error, History, RunRow};

/// What the runs of one unit of a request reserved and used, by what their forecast came from.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct UnitComparison {
    /// The unit.
    pub unit: String,
    /// What the forecast came from: `declared`, `profile`, `model`, `default`.
    pub source: String,
    /// Runs, of any outcome.
    pub runs: u64,
    /// Runs killed for memory.
    pub oom: u64,
    /// Median reserved memory.
    #[serde(with = "bytes")]
    pub reserved_memory_p50: Bytes,
    /// Largest reserved memory.
    #[serde(with = "bytes")]
    pub reserved_memory_max: Bytes,
    /// Median used memory of succeeded runs; zero if none did.
    #[serde(with = "bytes")]
    pub used_memory_p50: Bytes,
    /// Largest used memory of succeeded runs; zero if none did.
    #[serde(with = "bytes")]
    pub used_memory_max: Bytes,
    /// Reserved memory over the duration, summed over all runs.
    pub reserved_gb_s: f64,
    /// Largest used memory over the duration, summed over all runs: an upper bound of the use.
    pub used_gb_s: f64,
    /// Reserved CPU over the duration, summed over all runs.
    pub reserved_core_s: f64,
    /// CPU time, summed over all runs.
    pub used_core_s: f64,
}

/// What one request took.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct RequestSummary {
    /// Runs, of any outcome; 0 if history has nothing of the request.
    pub runs: u64,
    /// Runs that became the success of their shard.
    pub winning: u64,
    /// Runs killed for memory, each of which was tried again or failed its shard.
    pub oom_retries: u64,
    /// From the first release of a shard to the end of the last run; workers' clocks, so good to their differences.
    pub makespan_ms: u64,
    /// See [`UnitComparison::reserved_gb_s`].
    pub reserved_gb_s: f64,
    /// See [`UnitComparison::used_gb_s`].
    pub used_gb_s: f64,
    /// See [`UnitComparison::reserved_core_s`].
    pub reserved_core_s: f64,
    /// See [`UnitComparison::used_core_s`].
    pub used_core_s: f64,
}

impl History {
    /// What each unit of a request reserved and used, in order of unit and source. Empty for an unknown request.
    pub async fn unit_comparison(&self, request_id: Uuid) -> Result<Vec<UnitComparison>, Error> {
        let query = self.connection.client().query(
            "SELECT
                r.unit AS unit,
                r.forecast_source AS source,
                count() AS runs,
                countIf(r.outcome = 'out-of-memory') AS oom,
                quantileExact(0.5)(r.reserved_memory_bytes) AS reserved_memory_p50,
                max(r.reserved_memory_bytes) AS reserved_memory_max,
                quantileExactIf(0.5)(r.used_memory_bytes, r.outcome = 'succeeded') AS used_memory_p50,
                maxIf(r.used_memory_bytes, r.outcome = 'succeeded') AS used_memory_max,
                sum(r.reserved_gb_s) AS reserved_gb_s,
                sum(r.used_gb_s) AS used_gb_s,
                sum(r.reserved_core_s) AS reserved_core_s,
                sum(r.used_core_s) AS used_core_s
             FROM v_runs AS r
             WHERE r.request_id = toUUID(?)
             GROUP BY unit, source
             ORDER BY unit, source",
        );
        self.connection.fetch("compare units", query.bind(request_id.to_string())).await
    }

    /// What a request took. All zero for an unknown request.
    pub async fn request_summary(&self, request_id: Uuid) -> Result<RequestSummary, Error> {
        let query = self.connection.client().query(
            "SELECT
                count() AS runs,
                countIf(r.winning) AS winning,
                countIf(r.outcome = 'out-of-memory') AS oom_retries,
                toUInt64(if(countIf(r.started_at > 0) = 0, 0, greatest(0,
                    max(toUnixTimestamp64Milli(r.ended_at))
                    - minIf(toUnixTimestamp64Milli(r.started_at) - toInt64(r.waited_ms), r.started_at > 0)
                ))) AS makespan_ms,
                sum(r.reserved_gb_s) AS reserved_gb_s,
                sum(r.used_gb_s) AS used_gb_s,
                sum(r.reserved_core_s) AS reserved_core_s,
                sum(r.used_core_s) AS used_core_s
             FROM v_runs AS r
             WHERE r.request_id = toUUID(?)",
        );
        self.connection.fetch_one("summarise a request", query.bind(request_id.to_string())).await
    }

    /// The runs of a request, in the order in which they ended.
    pub async fn runs_of(&self, request_id: Uuid) -> Result<Vec<RunRow>, Error> {
        let query = self
            .connection
            .client()
            .query("SELECT ?fields FROM v_runs WHERE request_id = toUUID(?) ORDER BY ended_at, run_id")
            .bind(request_id.to_string());
        self.connection.fetch("read the runs of a request", query).await
    }

    /// How many runs there are, of one request or of all.
    pub async fn count_runs(&self, request_id: Option<Uuid>) -> Result<u64, Error> {
        let client = self.connection.client();
        let query = match request_id {
            Some(id) => client.query("SELECT count() FROM v_runs WHERE request_id = toUUID(?)").bind(id.to_string()),
            None => client.query("SELECT count() FROM v_runs"),
        };
        self.connection.fetch_one("count runs", query).await
    }
}
