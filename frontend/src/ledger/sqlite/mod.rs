//! The ledger in SQLite.
//!
//! # Map
//!
//! - [`SqliteLedger`]: the handle that implements [`Ledger`](super::Ledger).
//! - `owner`: the file lock that makes this process the ledger's only owner.
//! - `schema`: tables and their version.
//! - `writer`: the one thread that writes, with group commit; `reader`: connections that only read.
//! - `admission`, `plan`, `release`, `apply`, `ending`, `retention`: what the writer does; `batch`: what they share.
//! - `attempts`, `dead`, `decisions`: rows of attempts, of shards that failed for good, and the logs.
//! - `reply`: final replies, and whether they are owed.
//! - `queries`, `claims`, `history`: what readers ask.
//! - `chunk`: up to 1,024 shards of a stage in one row.
//!
//! # What always holds
//!
//! `synchronous=FULL` in WAL mode: a commit is on disk when it answers. Its durability is that of this one disk.

mod admission;
mod apply;
mod attempts;
mod batch;
mod chunk;
mod claims;
mod dead;
mod decisions;
mod ending;
mod history;
mod ledger;
mod owner;
mod plan;
mod queries;
mod reader;
mod release;
mod reply;
mod retention;
mod schema;
mod writer;

pub use ledger::{SqliteLedger, backup_file};
pub use schema::VERSION as SCHEMA_VERSION;

use super::Error;

/// Names what was being done when SQLite said no; a full disk is an error of its own.
fn during(context: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| {
        if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            Error::DiskFull
        } else {
            Error::Sqlite { context, source }
        }
    }
}

/// SQLite's integers are signed; times in milliseconds and counts fit all the same.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The inverse of [`signed`]; negative values do not occur.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
