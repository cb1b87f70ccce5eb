//! A row of `load_samples`: one load report of a worker.

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::writer::{HistoryRow, check_time};

/// One load report. Field names are the table's columns, so bare numbers carry their unit in their name.
#[derive(Debug, Clone, PartialEq, Default, Row, Serialize, Deserialize)]
pub struct LoadSampleRow {
    /// One life of one worker process.
    #[serde(with = "clickhouse::serde::uuid")]
    pub worker_id: Uuid,
    /// The operator's name for it.
    pub worker_name: String,
    /// Its fleet.
    pub fleet: String,
    /// What kind of machine.
    pub node_class: String,
    /// How it enforces: `cgroup-v2`, `cgroup-v1`, `rusage`.
    pub enforcement: String,
    /// Rises by one with each report.
    pub sequence: u64,
    /// Milliseconds since 1970, by the worker's clock.
    pub at: i64,
    /// Capacity in thousandths of a core.
    pub capacity_cpu_millis: u64,
    /// Capacity of memory.
    pub capacity_memory_bytes: u64,
    /// Capacity of I/O.
    pub capacity_io_bytes_per_second: u64,
    /// What of it is free.
    pub free_cpu_millis: u64,
    /// What of it is free.
    pub free_memory_bytes: u64,
    /// What of it is free.
    pub free_io_bytes_per_second: u64,
    /// Leases held.
    pub leases: u32,
    /// Load of the machine over one minute.
    pub load_average: f64,
    /// Available memory of the machine.
    pub memory_available_bytes: u64,
    /// True once it stopped claiming.
    pub draining: bool,
}

impl HistoryRow for LoadSampleRow {
    const TABLE: &'static str = "load_samples";

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.worker_id.is_nil() {
            return Err(("worker_id", "it is missing".to_owned()));
        }
        check_time("at", self.at)
    }

    fn identity(&self) -> impl AsRef<[u8]> {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(self.worker_id.as_bytes());
        bytes[16..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }
}
