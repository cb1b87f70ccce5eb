//! Runs to write in tests.

use forecastle_history::{RunRow, outcome};
use uuid::Uuid;

/// A moment in 2026, in milliseconds since 1970, at the full hour.
pub(crate) const NOON: i64 = 1_780_000_000_000 - 1_780_000_000_000 % 3_600_000;

/// A winning run of the unit `compress` that reserved 2 GB and 2 cores for 10 s and used half of both.
pub(crate) fn run(request_id: Uuid, index: u32) -> RunRow {
    RunRow {
        run_id: Uuid::now_v7(),
        request_id,
        shard_id: format!("{request_id}.0.{index}"),
        attempt: 1,
        worker_id: Uuid::from_u128(7),
        tenant: "tenant".to_owned(),
        request_type: "archive".to_owned(),
        stage: "pack".to_owned(),
        unit: "compress".to_owned(),
        priority: "standard".to_owned(),
        size_class: "M".to_owned(),
        outcome: outcome::SUCCEEDED.to_owned(),
        reserved_cpu_millis: 2000,
        reserved_memory_bytes: 2_000_000_000,
        reserved_io_bytes_per_second: 1_000_000,
        reserved_scratch_bytes: 3_000_000_000,
        reserved_duration_ms: 12_000,
        used_memory_bytes: 1_000_000_000,
        used_cpu_ms: 10_000,
        io_read_bytes: 300,
        io_write_bytes: 200,
        duration_ms: 10_000,
        usage_source: "cgroup-v2".to_owned(),
        started_at: NOON,
        ended_at: NOON + 10_000,
        waited_ms: 100,
        node_class: "small".to_owned(),
        input_bytes: 1000,
        input_items: 3,
        forecast_source: "declared".to_owned(),
        model_version: String::new(),
        quantile: 0.95,
        need_probability: vec![0.5, 0.95],
        need_cpu_millis: vec![1000.0, 1500.0],
        need_memory_bytes: vec![0.9e9, 1.1e9],
        need_io_bytes_per_second: vec![10.0, 20.0],
        need_duration_ms: vec![9000.0, 12_000.0],
        memory_ladder_bytes: vec![2_000_000_000, 4_000_000_000],
        winning: true,
        ledger_seq: u64::from(index) + 1,
        ..RunRow::default()
    }
}

/// The same, but killed for memory at its limit of 1 GB after 5 s.
pub(crate) fn killed_for_memory(request_id: Uuid, index: u32) -> RunRow {
    RunRow {
        outcome: outcome::OUT_OF_MEMORY.to_owned(),
        error: "killed for memory at 1 GB".to_owned(),
        exit_code: -1,
        signal: 9,
        reserved_memory_bytes: 1_000_000_000,
        used_memory_bytes: 1_000_000_000,
        used_cpu_ms: 5000,
        duration_ms: 5000,
        ended_at: NOON + 5000,
        winning: false,
        ..run(request_id, index)
    }
}
