//! Rows live as long as the options say, and the options may change.

use forecastle_history::{History, HistoryOptions};
use uuid::Uuid;

use crate::database::TestDatabase;
use crate::sample_runs::run;

async fn definition(database: &TestDatabase, table: &str) -> String {
    let sql = format!("SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = '{table}'");
    database.ask(&sql).await[0]["engine_full"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn retention_follows_the_options_and_can_be_lifted() {
    let database = TestDatabase::new().await;
    for table in ["runs", "plans", "decisions", "shard_decisions", "evaluations"] {
        assert!(definition(&database, table).await.contains("TTL recorded_at + toIntervalDay(180)"), "{table}");
    }
    assert!(definition(&database, "load_samples").await.contains("TTL recorded_at + toIntervalDay(14)"));
    assert!(!definition(&database, "models").await.contains("TTL"), "models are kept");

    let options = HistoryOptions { retention_days: 7, load_sample_retention_days: 0, ..database.options.clone() };
    History::new(options).unwrap().migrate().await.unwrap();
    assert!(definition(&database, "runs").await.contains("TTL recorded_at + toIntervalDay(7)"));
    assert!(!definition(&database, "load_samples").await.contains("TTL"));
}

#[tokio::test]
async fn what_has_outlived_its_retention_goes_and_the_rest_stays() {
    let database = TestDatabase::new().await;
    let (old, new) = (Uuid::now_v7(), Uuid::now_v7());
    database.history.writer().insert_runs(&[run(old, 0)]).await.unwrap();
    // Recorded 181 days ago, as far as ClickHouse knows.
    database
        .execute("ALTER TABLE runs UPDATE recorded_at = now() - toIntervalDay(181) WHERE 1 SETTINGS mutations_sync = 2")
        .await;
    database.history.writer().insert_runs(&[run(new, 0)]).await.unwrap();
    database.execute("OPTIMIZE TABLE runs FINAL").await;
    assert_eq!(database.history.count_runs(Some(old)).await.unwrap(), 0);
    assert_eq!(database.history.count_runs(Some(new)).await.unwrap(), 1);
}
