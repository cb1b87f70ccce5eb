//! Batches: once, again, in pieces, large, and wrong.

use std::time::{Duration, Instant};

use forecastle_history::{Error, LoadSampleRow, PlanRow, RunRow, ShardDecisionRow, outcome};
use uuid::Uuid;

use crate::database::TestDatabase;
use crate::sample_runs::{NOON, run};

async fn stored_rows(database: &TestDatabase, table: &str) -> u64 {
    database.ask(&format!("SELECT count() AS rows FROM {table}")).await[0]["rows"].as_u64().unwrap()
}

#[tokio::test]
async fn a_run_is_read_back_as_it_was_written() {
    let database = TestDatabase::new().await;
    let request = Uuid::now_v7();
    let written = RunRow {
        adjusted_at: vec![NOON + 1000, NOON + 2000],
        adjusted_change: vec!["grow".to_owned(), "stop".to_owned()],
        adjusted_reason: vec!["memory-near-limit".to_owned(), "makes-way".to_owned()],
        adjusted_cpu_millis: vec![2000, 2000],
        adjusted_memory_bytes: vec![3_000_000_000, 3_000_000_000],
        adjusted_io_bytes_per_second: vec![0, 7],
        further_adjustments: 5,
        held_memory_byte_seconds: 1.5e9,
        held_core_seconds: 2.5,
        ..run(request, 0)
    };
    database.history.writer().insert_runs(std::slice::from_ref(&written)).await.unwrap();
    assert_eq!(database.history.runs_of(request).await.unwrap(), [written]);
    assert_eq!(database.history.runs_of(Uuid::now_v7()).await.unwrap(), []);
}

#[tokio::test]
async fn the_same_batch_again_is_not_even_stored() {
    let database = TestDatabase::new().await;
    let request = Uuid::now_v7();
    let batch: Vec<RunRow> = (0..10).map(|index| run(request, index)).collect();
    for _ in 0..3 {
        database.history.writer().insert_runs(&batch).await.unwrap();
    }
    assert_eq!(stored_rows(&database, "runs").await, 10);
    assert_eq!(database.history.count_runs(Some(request)).await.unwrap(), 10);
}

#[tokio::test]
async fn runs_that_arrive_in_other_batches_count_once_in_every_view() {
    let database = TestDatabase::new().await;
    let request = Uuid::now_v7();
    let runs: Vec<RunRow> = (0..10).map(|index| run(request, index)).collect();
    // Merging is off, so that the views have to see the duplicates themselves.
    database.execute("SYSTEM STOP MERGES runs").await;
    for batch in [&runs[..], &runs[3..7], &runs[5..]] {
        database.history.writer().insert_runs(batch).await.unwrap();
    }
    assert_eq!(stored_rows(&database, "runs").await, 19);
    for view in ["v_predicted_vs_actual", "v_waste", "v_failures", "v_waiting_running", "v_worker_throughput"] {
        let rows = database.ask(&format!("SELECT sum(runs) AS runs FROM {view}")).await;
        assert_eq!(rows[0]["runs"], 10, "{view}");
    }
    assert_eq!(database.history.count_runs(None).await.unwrap(), 10);
}

#[tokio::test]
async fn the_ledgers_later_word_about_a_run_replaces_the_earlier_whatever_it_says() {
    let database = TestDatabase::new().await;
    let request = Uuid::now_v7();
    let late = RunRow { ledger_seq: 9, ..run(request, 0) };
    // Another end, another worker's words: nothing but the run is the same.
    let lost = RunRow {
        outcome: outcome::WORKER_LOST.to_owned(),
        request_type: "other".to_owned(),
        ended_at: NOON + 90 * 24 * 3_600_000,
        started_at: 0,
        winning: false,
        ledger_seq: 5,
        ..late.clone()
    };
    let writer = database.history.writer();
    // In either order of arrival.
    writer.insert_runs(std::slice::from_ref(&late)).await.unwrap();
    writer.insert_runs(std::slice::from_ref(&lost)).await.unwrap();
    assert_eq!(database.history.runs_of(request).await.unwrap(), [late]);
}

#[tokio::test]
async fn a_hundred_thousand_runs_are_one_batch() {
    let database = TestDatabase::new().await;
    let request = Uuid::now_v7();
    let batch: Vec<RunRow> = (0..100_000).map(|index| run(request, index)).collect();
    let start = Instant::now();
    database.history.writer().insert_runs(&batch).await.unwrap();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(30), "the sink would fall behind: {took:?}");
    database.history.writer().insert_runs(&batch).await.unwrap();
    assert_eq!(stored_rows(&database, "runs").await, 100_000);
    assert_eq!(database.history.count_runs(Some(request)).await.unwrap(), 100_000);
    println!("100,000 runs inserted in {took:?}");
}

#[tokio::test]
async fn a_wrong_row_is_named_and_nothing_of_its_batch_is_sent() {
    let database = TestDatabase::new().await;
    let request = Uuid::now_v7();
    let wrong = RunRow { outcome: "exploded".to_owned(), winning: false, ..run(request, 1) };
    let error = database.history.writer().insert_runs(&[run(request, 0), wrong]).await.unwrap_err();
    assert!(matches!(&error, Error::InvalidRow { table: "runs", index: 1, field: "outcome", .. }), "{error}");
    assert!(error.to_string().contains("exploded") && !error.is_retryable(), "{error}");
    assert_eq!(stored_rows(&database, "runs").await, 0);
    database.history.writer().insert_runs(&[]).await.unwrap();
}

#[tokio::test]
async fn texts_of_any_kind_survive() {
    let database = TestDatabase::new().await;
    let request = Uuid::now_v7();
    let error = "quotes ' \" ` and \\ and ?, a tab\t, a line\n, nul \0, {braces}, ünïcode 🦀".to_owned();
    let row = RunRow { error, tenant: String::new(), ..run(request, 0) };
    database.history.writer().insert_runs(std::slice::from_ref(&row)).await.unwrap();
    assert_eq!(database.history.runs_of(request).await.unwrap(), [row]);
}

#[tokio::test]
async fn load_samples_and_plans_are_stored_once() {
    let database = TestDatabase::new().await;
    let writer = database.history.writer();
    let sample = LoadSampleRow {
        worker_id: Uuid::now_v7(),
        worker_name: "anna".to_owned(),
        fleet: "default".to_owned(),
        sequence: 4,
        at: NOON,
        capacity_cpu_millis: 2000,
        free_cpu_millis: 500,
        leases: 3,
        load_average: 1.5,
        draining: true,
        ..LoadSampleRow::default()
    };
    let plan = PlanRow {
        request_id: Uuid::now_v7(),
        request_type: "archive".to_owned(),
        stages: 2,
        shards: 40,
        input_items: 1000,
        input_bytes: 1 << 40,
        at: NOON,
        ..PlanRow::default()
    };
    for _ in 0..2 {
        writer.insert_load_samples(std::slice::from_ref(&sample)).await.unwrap();
        writer.insert_plans(std::slice::from_ref(&plan)).await.unwrap();
    }
    let samples = database.ask("SELECT * FROM load_samples").await;
    assert_eq!(samples.len(), 1, "{samples:?}");
    assert_eq!((&samples[0]["worker_name"], &samples[0]["leases"]), (&"anna".into(), &3.into()));
    assert_eq!(samples[0]["worker_id"], sample.worker_id.to_string());
    let plans = database.ask("SELECT * FROM plans").await;
    assert_eq!(plans.len(), 1, "{plans:?}");
    assert_eq!((&plans[0]["shards"], &plans[0]["input_bytes"]), (&40.into(), &(1_u64 << 40).into()));
    let nobody = LoadSampleRow::default();
    let error = writer.insert_load_samples(&[sample, nobody]).await.unwrap_err();
    assert!(matches!(error, Error::InvalidRow { index: 1, field: "worker_id", .. }), "{error}");
}

#[tokio::test]
async fn a_decision_is_stored_once_whoever_writes_it_again() {
    let database = TestDatabase::new().await;
    let writer = database.history.writer();
    let shard = format!("{}.0.7", Uuid::now_v7());
    let lost = ShardDecisionRow {
        shard_id: shard.clone(),
        attempt: 1,
        run_id: Uuid::now_v7(),
        request_type: "archive".to_owned(),
        kind: "lost".to_owned(),
        at: NOON,
        why: "it's \"silent\"".to_owned(),
        evidence: r#"{"silent_ms":15000}"#.to_owned(),
        ..ShardDecisionRow::default()
    };
    let dead = ShardDecisionRow { kind: "dead".to_owned(), run_id: Uuid::nil(), ..lost.clone() };
    for batch in [vec![lost.clone(), dead.clone()], vec![lost.clone()], vec![dead, lost.clone()]] {
        writer.insert_shard_decisions(&batch).await.unwrap();
    }
    let rows = database.ask("SELECT * FROM v_shard_decisions ORDER BY kind").await;
    assert_eq!(rows.iter().map(|row| row["kind"].as_str().unwrap()).collect::<Vec<_>>(), ["dead", "lost"]);
    assert_eq!((&rows[1]["why"], &rows[1]["run_id"]), (&lost.why.as_str().into(), &lost.run_id.to_string().into()));
    let of = "SELECT JSONExtractUInt(evidence, 'silent_ms') AS silent FROM v_shard_decisions WHERE kind = 'lost'";
    assert_eq!(database.ask(of).await[0]["silent"].to_string().trim_matches('"'), "15000");
    let nothing = ShardDecisionRow { kind: String::new(), ..lost };
    let error = writer.insert_shard_decisions(&[nothing]).await.unwrap_err();
    assert!(matches!(error, Error::InvalidRow { field: "kind", .. }), "{error}");
}

#[tokio::test]
async fn without_migrations_the_table_is_missing_and_a_retry_does_not_help() {
    let database = TestDatabase::empty().await;
    let error = database.history.writer().insert_runs(&[run(Uuid::now_v7(), 0)]).await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: Some(60 | 81), .. }), "{error}");
    assert!(!error.is_retryable());
}
