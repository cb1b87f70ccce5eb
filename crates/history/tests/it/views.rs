//! The numbers of views and queries, on a data set small enough to check by hand.
//!
//! One request: three runs of `compress` won on declared reservations (2 GB and 2 cores reserved for 10 s; 1, 1.2 and
//! 1.4 GB and 10 core·s used), one was killed at 1 GB after 5 s, and one of `index` won on a profile.

use forecastle_history::{LoadSampleRow, RequestSummary, RunRow, UnitComparison};
use forecastle_resources::Bytes;
use serde_json::Value;
use uuid::Uuid;

use crate::database::TestDatabase;
use crate::sample_runs::{NOON, killed_for_memory, run};

async fn small_data_set() -> (TestDatabase, Uuid) {
    let database = TestDatabase::new().await;
    let request = Uuid::now_v7();
    let mut runs = vec![killed_for_memory(request, 0)];
    for (index, memory, waited) in [(0, 1_000_000_000, 100), (1, 1_200_000_000, 200), (2, 1_400_000_000, 300)] {
        runs.push(RunRow { used_memory_bytes: memory, waited_ms: waited, ..run(request, index) });
    }
    runs.push(RunRow {
        unit: "index".to_owned(),
        forecast_source: "profile".to_owned(),
        worker_id: Uuid::from_u128(8),
        reserved_memory_bytes: 500_000_000,
        reserved_cpu_millis: 1000,
        used_memory_bytes: 400_000_000,
        used_cpu_ms: 15_000,
        duration_ms: 20_000,
        started_at: NOON + 10_000,
        ended_at: NOON + 30_000,
        ..run(request, 3)
    });
    // Of another request, of which no number below knows.
    runs.push(RunRow { request_type: "elsewhere".to_owned(), worker_id: Uuid::from_u128(9), ..run(Uuid::now_v7(), 0) });
    database.history.writer().insert_runs(&runs).await.unwrap();
    (database, request)
}

#[track_caller]
fn assert_near(row: &Value, column: &str, expected: f64) {
    let actual = row[column].as_f64().unwrap_or_else(|| panic!("{column} of {row}"));
    assert!(
        (actual - expected).abs() <= expected.abs() * 1e-6 + 1e-9,
        "{column}: {actual}, expected {expected}\n{row}"
    );
}

async fn only_row(database: &TestDatabase, view: &str, condition: &str) -> Value {
    let mut rows = database.ask(&format!("SELECT * FROM {view} WHERE {condition}")).await;
    assert_eq!(rows.len(), 1, "{view} where {condition}: {rows:?}");
    rows.remove(0)
}

#[tokio::test]
async fn predicted_vs_actual_compares_what_was_reserved_with_what_succeeded_used() {
    let (database, _) = small_data_set().await;
    let row = only_row(&database, "v_predicted_vs_actual", "request_type = 'archive' AND unit = 'compress'").await;
    assert_eq!(row["source"], "declared");
    for (column, expected) in [
        ("runs", 4.0),
        ("succeeded", 3.0),
        ("out_of_memory", 1.0),
        ("reserved_memory_p50", 2e9),
        ("reserved_memory_p95", 2e9),
        ("reserved_memory_max", 2e9),
        ("used_memory_p50", 1.2e9),
        // Between the second and the third of three: 1.2 + 0.9 × 0.2.
        ("used_memory_p95", 1.38e9),
        ("used_memory_max", 1.4e9),
        ("reserved_to_used_memory", 6.0 / 3.6),
        ("reserved_cpu_millis_p50", 2000.0),
        ("used_cpu_millis_p50", 1000.0),
        ("predicted_duration_ms_p50", 12_000.0),
        ("duration_ms_p50", 10_000.0),
        ("duration_ms_p95", 10_000.0),
    ] {
        assert_near(&row, column, expected);
    }
    let row = only_row(&database, "v_predicted_vs_actual", "unit = 'index'").await;
    assert_eq!(row["source"], "profile");
    assert_near(&row, "used_cpu_millis_p50", 750.0);
}

#[tokio::test]
async fn waste_is_what_was_held_and_not_used() {
    let (database, _) = small_data_set().await;
    let row = only_row(&database, "v_waste", "request_type = 'archive' AND unit = 'compress'").await;
    for (column, expected) in [
        ("runs", 4.0),
        // Three times 2 GB for 10 s and once 1 GB for 5 s.
        ("reserved_gb_s", 65.0),
        ("used_gb_s", 10.0 + 12.0 + 14.0 + 5.0),
        ("wasted_gb_s", 10.0 + 8.0 + 6.0),
        ("lost_gb_s", 5.0),
        ("reserved_core_s", 70.0),
        ("used_core_s", 35.0),
        ("wasted_core_s", 35.0),
    ] {
        assert_near(&row, column, expected);
    }
}

#[tokio::test]
async fn where_leases_followed_use_waste_is_by_what_they_held_and_each_change_is_a_row() {
    let database = TestDatabase::new().await;
    let adjusted = RunRow {
        adjusted_at: vec![NOON + 1000, NOON + 2000],
        adjusted_change: vec!["grow".to_owned(), "shrink".to_owned()],
        adjusted_reason: vec!["memory-near-limit".to_owned(), "not-needed".to_owned()],
        adjusted_cpu_millis: vec![2000, 1500],
        adjusted_memory_bytes: vec![3_000_000_000, 1_200_000_000],
        adjusted_io_bytes_per_second: vec![0, 0],
        held_memory_byte_seconds: 13e9,
        held_core_seconds: 16.0,
        ..run(Uuid::now_v7(), 0)
    };
    database.history.writer().insert_runs(&[adjusted]).await.unwrap();
    let waste = only_row(&database, "v_waste", "unit = 'compress'").await;
    for (column, expected) in
        [("reserved_gb_s", 20.0), ("held_gb_s", 13.0), ("wasted_gb_s", 3.0), ("wasted_core_s", 6.0)]
    {
        assert_near(&waste, column, expected);
    }
    let shrunk = only_row(&database, "v_adjustments", "change = 'shrink'").await;
    assert_eq!((&shrunk["reason"], &shrunk["memory_bytes"]), (&"not-needed".into(), &1_200_000_000u64.into()));
    assert_eq!(database.ask("SELECT * FROM v_adjustments").await.len(), 2);
}

#[tokio::test]
async fn failures_are_shares_of_the_runs_of_a_unit() {
    let (database, _) = small_data_set().await;
    let of = |outcome: &str| format!("request_type = 'archive' AND unit = 'compress' AND outcome = '{outcome}'");
    assert_near(&only_row(&database, "v_failures", &of("out-of-memory")).await, "share", 0.25);
    assert_near(&only_row(&database, "v_failures", &of("succeeded")).await, "share", 0.75);
    assert_near(&only_row(&database, "v_failures", "unit = 'index'").await, "share", 1.0);
}

#[tokio::test]
async fn waiting_and_running_are_quantiles_by_priority() {
    let (database, _) = small_data_set().await;
    let row = only_row(&database, "v_waiting_running", "request_type = 'archive' AND unit = 'compress'").await;
    assert_eq!(row["priority"], "standard");
    // Waited 100, 100, 200 and 300 ms; ran 5, 10, 10 and 10 s.
    for (column, expected) in [
        ("waited_ms_p50", 150.0),
        ("waited_ms_p95", 285.0),
        ("waited_ms_max", 300.0),
        ("duration_ms_p50", 10_000.0),
        ("duration_ms_max", 10_000.0),
    ] {
        assert_near(&row, column, expected);
    }
}

#[tokio::test]
async fn throughput_is_by_worker_and_hour_with_the_workers_name() {
    let (database, _) = small_data_set().await;
    let named = |sequence, name: &str| LoadSampleRow {
        worker_id: Uuid::from_u128(7),
        worker_name: name.to_owned(),
        sequence,
        at: NOON + i64::try_from(sequence).unwrap(),
        ..LoadSampleRow::default()
    };
    database.history.writer().insert_load_samples(&[named(2, "anna"), named(1, "before")]).await.unwrap();
    let row = only_row(&database, "v_worker_throughput", &format!("worker_id = '{}'", Uuid::from_u128(7))).await;
    assert_eq!(row["worker_name"], "anna");
    for (column, expected) in [
        ("runs", 4.0),
        ("succeeded", 3.0),
        ("run_seconds", 35.0),
        ("used_core_s", 35.0),
        ("input_bytes", 4000.0),
        ("io_read_bytes", 1200.0),
        ("io_write_bytes", 800.0),
    ] {
        assert_near(&row, column, expected);
    }
    let unnamed = only_row(&database, "v_worker_throughput", &format!("worker_id = '{}'", Uuid::from_u128(8))).await;
    assert_eq!(unnamed["worker_name"], "", "a worker that never reported is there all the same");
}

#[tokio::test]
async fn units_of_a_request_are_compared() {
    let (database, request) = small_data_set().await;
    let units = database.history.unit_comparison(request).await.unwrap();
    let expected = [
        UnitComparison {
            unit: "compress".to_owned(),
            source: "declared".to_owned(),
            runs: 4,
            oom: 1,
            reserved_memory_p50: Bytes(2_000_000_000),
            reserved_memory_max: Bytes(2_000_000_000),
            used_memory_p50: Bytes(1_200_000_000),
            used_memory_max: Bytes(1_400_000_000),
            reserved_gb_s: 65.0,
            used_gb_s: 41.0,
            reserved_core_s: 70.0,
            used_core_s: 35.0,
        },
        UnitComparison {
            unit: "index".to_owned(),
            source: "profile".to_owned(),
            runs: 1,
            oom: 0,
            reserved_memory_p50: Bytes(500_000_000),
            reserved_memory_max: Bytes(500_000_000),
            used_memory_p50: Bytes(400_000_000),
            used_memory_max: Bytes(400_000_000),
            reserved_gb_s: 10.0,
            used_gb_s: 8.0,
            reserved_core_s: 20.0,
            used_core_s: 15.0,
        },
    ];
    assert_eq!(units.len(), 2, "{units:?}");
    for (actual, expected) in units.iter().zip(&expected) {
        let (actual, expected) = (serde_json::to_value(actual).unwrap(), serde_json::to_value(expected).unwrap());
        for (column, value) in expected.as_object().unwrap() {
            match value.as_f64() {
                Some(number) => assert_near(&actual, column, number),
                None => assert_eq!(&actual[column], value),
            }
        }
    }
    assert_eq!(database.history.unit_comparison(Uuid::now_v7()).await.unwrap(), []);
}

#[tokio::test]
async fn a_request_is_summarised_from_its_first_release_to_its_last_end() {
    let (database, request) = small_data_set().await;
    let summary = database.history.request_summary(request).await.unwrap();
    // Released 300 ms before noon, ended 30 s after it.
    assert_eq!((summary.runs, summary.winning, summary.oom_retries, summary.makespan_ms), (5, 4, 1, 30_300));
    for (actual, expected) in [
        (summary.reserved_gb_s, 75.0),
        (summary.used_gb_s, 49.0),
        (summary.reserved_core_s, 90.0),
        (summary.used_core_s, 50.0),
    ] {
        assert!((actual - expected).abs() < 1e-6, "{summary:?}");
    }
    let nothing = database.history.request_summary(Uuid::now_v7()).await.unwrap();
    let zero = RequestSummary {
        runs: 0,
        winning: 0,
        oom_retries: 0,
        makespan_ms: 0,
        reserved_gb_s: 0.0,
        used_gb_s: 0.0,
        reserved_core_s: 0.0,
        used_core_s: 0.0,
    };
    assert_eq!(nothing, zero);
}

#[tokio::test]
async fn runs_that_never_started_make_no_makespan() {
    let database = TestDatabase::new().await;
    let request = Uuid::now_v7();
    let lost = RunRow { started_at: 0, duration_ms: 0, ..run(request, 0) };
    database.history.writer().insert_runs(&[lost]).await.unwrap();
    let summary = database.history.request_summary(request).await.unwrap();
    assert_eq!((summary.runs, summary.makespan_ms), (1, 0));
}
