//! Names and descriptions of this crate's metrics.

use metrics::{Unit, describe_counter, describe_histogram};

/// Rows that ClickHouse has taken, by `table`.
pub const ROWS_INSERTED: &str = "forecastle_history_rows_inserted_total";
/// How long successful inserts took, by `table`.
pub const INSERT_SECONDS: &str = "forecastle_history_insert_seconds";
/// Inserts that failed, by `table` and `retryable`.
pub const INSERT_FAILURES: &str = "forecastle_history_insert_failures_total";

/// Tells the recorder what they mean.
pub(crate) fn describe() {
    describe_counter!(ROWS_INSERTED, Unit::Count, "Rows that ClickHouse has taken, by table.");
    describe_histogram!(INSERT_SECONDS, Unit::Seconds, "How long successful inserts took, by table.");
    describe_counter!(INSERT_FAILURES, Unit::Count, "Inserts that failed, by table and whether a retry can help.");
}
