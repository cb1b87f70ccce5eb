//! History against a real ClickHouse, each test in a database of its own.
//!
//! The server is the one of `FORECASTLE_TEST_CLICKHOUSE_URL` (which may have user and password in it), else the local
//! stack's.

#![expect(clippy::unwrap_used, reason = "a test ends where something it needs is missing")]

mod database;
mod migrations;
mod outage;
mod proxy;
mod retention;
mod sample_runs;
mod tls;
mod views;
mod writing;
