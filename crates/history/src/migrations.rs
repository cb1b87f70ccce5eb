//! The schema, as ordered steps that are part of the program.
//!
//! A step that was released is never changed; a new one is added. ClickHouse has no transactions over schema changes
//! and no lock that dies with its holder, so steps are made safe to repeat instead: every statement changes nothing
//! the second time. Then two programs that start at once both apply a step and both note it, which is the same as
//! once; and a program that dies between the two applies it again.

use clickhouse::Row;
use serde::Deserialize;

use crate::Error;
use crate::connection::Connection;
use crate::fingerprint::fingerprint;
use crate::statements;

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// From 1, without gaps.
    pub version: u32,
    /// What it is about.
    pub name: &'static str,
    /// Statements, each safe to repeat.
    pub sql: &'static str,
}

/// All steps, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "runs", sql: include_str!("migrations/0001_runs.sql") },
    Migration { version: 2, name: "fleet_and_plans", sql: include_str!("migrations/0002_fleet_and_plans.sql") },
    Migration { version: 3, name: "models", sql: include_str!("migrations/0003_models.sql") },
    Migration { version: 4, name: "views", sql: include_str!("migrations/0004_views.sql") },
    Migration { version: 5, name: "adjustments", sql: include_str!("migrations/0005_adjustments.sql") },
    Migration { version: 6, name: "shard_decisions", sql: include_str!("migrations/0006_shard_decisions.sql") },
    Migration { version: 7, name: "scratch", sql: include_str!("migrations/0007_scratch.sql") },
];

/// What migrating did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationReport {
    /// The versions applied this time, in order.
    pub applied: Vec<u32>,
    /// The version of the schema now.
    pub version: u32,
}

impl Migration {
    /// SHA-256 of the SQL, in hexadecimal.
    pub fn checksum(&self) -> String {
        fingerprint([self.sql])
    }
}

#[derive(Debug, Row, Deserialize)]
struct AppliedRow {
    version: u32,
    checksum: String,
}

/// Makes the database if it is not there and applies the steps that are missing.
pub(crate) async fn migrate(connection: &Connection) -> Result<MigrationReport, Error> {
    let create = format!("CREATE DATABASE IF NOT EXISTS `{}`", connection.database());
    connection.execute_on_server("create the database", &create).await?;
    connection
        .execute(
            "create the table of migrations",
            "CREATE TABLE IF NOT EXISTS schema_migrations
             (version UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
             ENGINE = ReplacingMergeTree(applied_at) ORDER BY version",
        )
        .await?;
    let query = connection.client().query("SELECT version, checksum FROM schema_migrations FINAL ORDER BY version");
    let applied: Vec<AppliedRow> = connection.fetch("read the migrations that were applied", query).await?;
    check(connection.database(), &applied)?;

    let mut report = MigrationReport { applied: Vec::new(), version: 0 };
    for migration in MIGRATIONS {
        report.version = migration.version;
        if applied.iter().any(|row| row.version == migration.version) {
            continue;
        }
        let operation = format!("apply migration {} ({})", migration.version, migration.name);
        for statement in statements::split(migration.sql) {
            connection.execute(&operation, statement).await?;
        }
        let note = connection
            .client()
            .query("INSERT INTO schema_migrations (version, name, checksum) VALUES (?, ?, ?)")
            .bind(migration.version)
            .bind(migration.name)
            .bind(migration.checksum())
            // Whoever migrates next has to see it.
            .with_setting("async_insert", "0");
        connection.within(&operation, note.execute()).await?;
        tracing::info!(version = migration.version, name = migration.name, "history migrated");
        report.applied.push(migration.version);
    }
    Ok(report)
}

/// Refuses a database that another program has migrated differently or further.
fn check(database: &str, applied: &[AppliedRow]) -> Result<(), Error> {
    for row in applied {
        let Some(migration) = MIGRATIONS.iter().find(|migration| migration.version == row.version) else {
            let known = MIGRATIONS.last().map_or(0, |migration| migration.version);
            // The newest, not the first that is unknown.
            let found = applied.iter().map(|row| row.version).max().unwrap_or(row.version);
            return Err(Error::NewerSchema { database: database.to_owned(), found, known });
        };
        let known = migration.checksum();
        if row.checksum != known {
            return Err(Error::ChecksumMismatch {
                database: database.to_owned(),
                version: row.version,
                name: migration.name.to_owned(),
                applied: row.checksum.clone(),
                known,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_consecutive_from_one_and_match_the_files() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/migrations");
        let mut files: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let expected: Vec<String> =
            (1..).zip(MIGRATIONS).map(|(number, step)| format!("{number:04}_{}.sql", step.name)).collect();
        assert_eq!(files, expected);
        assert!((1..).zip(MIGRATIONS).all(|(number, step)| step.version == number));
    }

    #[test]
    fn every_statement_is_safe_to_repeat() {
        for migration in MIGRATIONS {
            let statements = statements::split(migration.sql);
            assert!(!statements.is_empty(), "{}", migration.name);
            for statement in statements {
                let code: Vec<&str> = statement.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
                let words = code.join(" ");
                let first = words.split_whitespace().take(6).collect::<Vec<_>>().join(" ");
                let safe = ["CREATE TABLE IF NOT EXISTS", "CREATE VIEW IF NOT EXISTS", "CREATE OR REPLACE VIEW"]
                    .iter()
                    .any(|start| first.starts_with(start))
                    || (first.starts_with("ALTER TABLE") && words.contains("IF NOT EXISTS"))
                    || (first.starts_with("DROP") && words.contains("IF EXISTS"));
                assert!(safe, "migration {}: {first} …", migration.name);
            }
        }
    }

    #[test]
    fn a_database_of_another_build_or_a_newer_one_is_refused() {
        let row = |version, checksum: &str| AppliedRow { version, checksum: checksum.to_owned() };
        let good = MIGRATIONS[0].checksum();
        assert!(check("d", &[]).is_ok());
        assert!(check("d", &[row(1, &good)]).is_ok());
        let error = check("d", &[row(1, &good), row(2, "feed")]).unwrap_err();
        assert!(matches!(&error, Error::ChecksumMismatch { version: 2, .. }), "{error}");
        let error = check("d", &[row(1, &good), row(900, "x"), row(901, "x")]).unwrap_err();
        assert!(matches!(&error, Error::NewerSchema { found: 901, .. }), "{error}");
        assert!(!error.is_retryable());
    }
}
