//! The schema, from nothing, again, at once, and over what others have made.

use forecastle_history::Error;
use forecastle_history::migrations::MIGRATIONS;

use crate::database::TestDatabase;

fn versions() -> Vec<u32> {
    MIGRATIONS.iter().map(|migration| migration.version).collect()
}

#[tokio::test]
async fn migrating_again_applies_nothing() {
    let database = TestDatabase::empty().await;
    let first = database.history.migrate().await.unwrap();
    assert_eq!(first.applied, versions());
    assert_eq!(Some(first.version), versions().last().copied());
    let second = database.history.migrate().await.unwrap();
    assert_eq!(second.applied, [] as [u32; 0]);
    assert_eq!(second.version, first.version);
    let noted = database.ask("SELECT version, name, checksum FROM schema_migrations ORDER BY version").await;
    assert_eq!(noted.len(), MIGRATIONS.len(), "{noted:?}");
    for (row, migration) in noted.iter().zip(MIGRATIONS) {
        assert_eq!(row["name"], migration.name);
        assert_eq!(row["checksum"], migration.checksum());
    }
}

#[tokio::test]
async fn programs_that_start_at_once_all_succeed_and_each_step_counts_once() {
    let database = TestDatabase::empty().await;
    let starts: Vec<_> = (0..6)
        .map(|_| {
            let history = database.history.clone();
            tokio::spawn(async move { history.migrate().await })
        })
        .collect();
    for start in starts {
        let report = start.await.unwrap().unwrap();
        assert_eq!(Some(report.version), versions().last().copied());
    }
    let noted = database.ask("SELECT version FROM schema_migrations FINAL ORDER BY version").await;
    let noted: Vec<u64> = noted.iter().map(|row| row["version"].as_u64().unwrap()).collect();
    assert_eq!(noted, versions().into_iter().map(u64::from).collect::<Vec<_>>());
    assert_eq!(database.history.count_runs(None).await.unwrap(), 0);
}

#[tokio::test]
async fn a_step_that_was_interrupted_is_finished() {
    let database = TestDatabase::new().await;
    // As after a crash between the statements of the last step: some of it is there, nothing is noted.
    let last = MIGRATIONS.last().unwrap();
    database.execute(&format!("DELETE FROM schema_migrations WHERE version = {}", last.version)).await;
    database.execute("DROP VIEW v_runs").await;
    let report = database.history.migrate().await.unwrap();
    assert_eq!(report.applied, [last.version]);
    assert_eq!(database.ask("SELECT reserved_scratch_bytes FROM v_runs").await.len(), 0);
}

#[tokio::test]
async fn a_step_with_another_checksum_is_refused() {
    let database = TestDatabase::new().await;
    database.execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (1, 'runs', 'feed')").await;
    let error = database.history.migrate().await.unwrap_err();
    assert!(matches!(&error, Error::ChecksumMismatch { version: 1, applied, .. } if applied == "feed"), "{error}");
    assert!(!error.is_retryable());
    assert!(error.to_string().contains(&database.options.database), "{error}");
}

#[tokio::test]
async fn a_schema_newer_than_the_program_is_refused() {
    let database = TestDatabase::new().await;
    database.execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (999, 'future', 'x')").await;
    let error = database.history.migrate().await.unwrap_err();
    assert!(matches!(error, Error::NewerSchema { found: 999, .. }), "{error}");
}
