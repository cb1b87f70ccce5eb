//! Writes batches: one insert for each, safe to repeat.
//!
//! An insert carries a token made of its rows' identities. ClickHouse drops a batch whose token it has seen among the
//! last thousand of the table, and the replacing tables drop what slips through. So a caller that does not know whether
//! a batch arrived sends the same batch again.

use std::time::Instant;

use clickhouse::{RowOwned, RowWrite};
use metrics::{counter, histogram};

use crate::connection::Connection;
use crate::fingerprint::fingerprint;
use crate::metric_definitions::{INSERT_FAILURES, INSERT_SECONDS, ROWS_INSERTED};
use crate::{Error, LoadSampleRow, PlanRow, RunRow, ShardDecisionRow};

/// What can be written.
pub(crate) trait HistoryRow: RowOwned + RowWrite {
    /// The table.
    const TABLE: &'static str;

    /// Refuses what must not be written, with the field and the reason.
    fn check(&self) -> Result<(), (&'static str, String)>;

    /// What makes two rows the same row.
    fn identity(&self) -> impl AsRef<[u8]>;
}

/// The largest `DateTime64(3)`: the end of the year 2299, in milliseconds since 1970.
const LAST_TIME: i64 = 10_413_791_999_999;

pub(crate) fn check_time(field: &'static str, milliseconds: i64) -> Result<(), (&'static str, String)> {
    if (0..=LAST_TIME).contains(&milliseconds) {
        Ok(())
    } else {
        Err((field, format!("{milliseconds} is no time in milliseconds between 1970 and 2299")))
    }
}

/// Writes to one database. Cheap to clone.
#[derive(Clone)]
pub struct HistoryWriter {
    connection: Connection,
}

impl std::fmt::Debug for HistoryWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HistoryWriter").field("database", &self.connection.database()).finish_non_exhaustive()
    }
}

impl HistoryWriter {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Writes a batch of runs: all of it or, on an error, perhaps nothing.
    ///
    /// # Errors
    ///
    /// After an error that [is retryable](Error::is_retryable) send the same rows in the same order again. After
    /// [`Error::InvalidRow`] nothing was sent, and the row that it names has to go.
    pub async fn insert_runs(&self, rows: &[RunRow]) -> Result<(), Error> {
        self.insert(rows).await
    }

    /// Writes a batch of decisions about shards; see [`Self::insert_runs`].
    pub async fn insert_shard_decisions(&self, rows: &[ShardDecisionRow]) -> Result<(), Error> {
        self.insert(rows).await
    }

    /// Writes a batch of load samples; see [`Self::insert_runs`].
    pub async fn insert_load_samples(&self, rows: &[LoadSampleRow]) -> Result<(), Error> {
        self.insert(rows).await
    }

    /// Writes a batch of plans; see [`Self::insert_runs`].
    pub async fn insert_plans(&self, rows: &[PlanRow]) -> Result<(), Error> {
        self.insert(rows).await
    }

    async fn insert<T: HistoryRow>(&self, rows: &[T]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        for (index, row) in rows.iter().enumerate() {
            row.check().map_err(|(field, reason)| Error::InvalidRow { table: T::TABLE, index, field, reason })?;
        }
        let start = Instant::now();
        let operation = format!("insert into {}", T::TABLE);
        let result = self.connection.within(&operation, self.send(rows)).await;
        match &result {
            Ok(()) => {
                histogram!(INSERT_SECONDS, "table" => T::TABLE).record(start.elapsed());
                counter!(ROWS_INSERTED, "table" => T::TABLE).increment(rows.len() as u64);
            }
            Err(error) => {
                let retryable = if error.is_retryable() { "true" } else { "false" };
                counter!(INSERT_FAILURES, "table" => T::TABLE, "retryable" => retryable).increment(1);
            }
        }
        result
    }

    async fn send<T: HistoryRow>(&self, rows: &[T]) -> clickhouse::error::Result<()> {
        let timeout = Some(self.connection.timeout());
        let mut insert = self
            .connection
            .client()
            .insert::<T>(T::TABLE)
            .await?
            .with_timeouts(timeout, timeout)
            .with_setting("insert_deduplicate", "1")
            .with_setting("insert_deduplication_token", token(rows))
            // The batch is the caller's; gathering it with others would only delay the answer.
            .with_setting("async_insert", "0");
        for row in rows {
            insert.write(row).await?;
        }
        insert.end().await
    }
}

/// The same for the same rows in the same order, and for no others.
fn token<T: HistoryRow>(rows: &[T]) -> String {
    fingerprint(rows.iter().map(HistoryRow::identity))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_token_tells_batches_apart_and_repeats_for_the_same() {
        let run = |id, ledger_seq| RunRow { run_id: Uuid::from_u128(id), ledger_seq, ..RunRow::default() };
        let batch = [run(1, 1), run(2, 2)];
        assert_eq!(token(&batch), token(&batch.clone()));
        for other in [vec![run(1, 1)], vec![run(2, 2), run(1, 1)], vec![run(1, 1), run(2, 3)]] {
            assert_ne!(token(&batch), token(&other));
        }
    }

    #[test]
    fn times_outside_the_column_are_refused() {
        assert!(check_time("at", 0).is_ok() && check_time("at", LAST_TIME).is_ok());
        assert!(check_time("at", -1).is_err() && check_time("at", LAST_TIME + 1).is_err());
    }
}
