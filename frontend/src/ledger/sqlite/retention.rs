//! What the ledger forgets, and marks that readers and replies leave.

use rusqlite::{Connection, params};

use super::queries::rows;
use super::{during, history, signed};
use crate::ledger::{Error, Pruned, Readers, Stray};

/// Tables with rows of a request, besides `requests` itself.
const OF_A_REQUEST: [&str; 8] = [
    "DELETE FROM stages WHERE request = ?1",
    "DELETE FROM chunks WHERE request = ?1",
    "DELETE FROM attempts WHERE request = ?1",
    "DELETE FROM exceptions WHERE request = ?1",
    "DELETE FROM runs WHERE request = ?1",
    "DELETE FROM dead WHERE request = ?1",
    "DELETE FROM given_up WHERE request = ?1",
    "DELETE FROM requests WHERE seq = ?1",
];

/// Removes requests that ended long ago, whose events every reader has passed and whose reply is not owed.
pub(super) fn prune(
    connection: &Connection,
    ended_before_ms: u64,
    readers: Readers,
    limit: u32,
) -> Result<Pruned, Error> {
    let passed = passed(connection, readers.events)?;
    let old: Vec<i64> = rows(
        connection,
        "listing requests that may go",
        "SELECT seq FROM requests r WHERE finished_ms < ?1 AND reply_state <> 1
           AND NOT EXISTS (SELECT 1 FROM events e WHERE e.request = r.seq AND e.seq > ?2)
         ORDER BY finished_ms LIMIT ?3",
        params![signed(ended_before_ms), passed, limit],
        |row| row.get(0),
    )?;
    let mut pruned = Pruned::default();
    for seq in old {
        let events = connection
            .prepare_cached("DELETE FROM events WHERE request = ?1")
            .and_then(|mut statement| statement.execute([seq]))
            .map_err(during("forgetting events"))?;
        for sql in OF_A_REQUEST {
            connection
                .prepare_cached(sql)
                .and_then(|mut statement| statement.execute([seq]))
                .map_err(during("forgetting a request"))?;
        }
        pruned.requests += 1;
        pruned.events += u32::try_from(events).unwrap_or(u32::MAX);
    }
    connection
        .prepare_cached("DELETE FROM event_gaps WHERE seq <= ?1")
        .and_then(|mut statement| statement.execute([passed]))
        .map_err(during("forgetting gaps"))?;
    forget_log(connection, "decisions", ended_before_ms, readers.decisions)?;
    forget_log(connection, "stage_forecasts", ended_before_ms, &[])?;
    Ok(pruned)
}

/// The last number that every one of `readers` has passed.
fn passed(connection: &Connection, readers: &[&str]) -> Result<i64, Error> {
    readers.iter().try_fold(i64::MAX, |passed, reader| Ok(passed.min(history::watermark(connection, reader)?)))
}

/// Forgets what was logged before `before_ms` and `readers` have passed.
fn forget_log(connection: &Connection, table: &str, before_ms: u64, readers: &[&str]) -> Result<(), Error> {
    let passed = passed(connection, readers)?;
    connection
        .prepare_cached(&format!("DELETE FROM {table} WHERE at_ms < ?1 AND seq <= ?2"))
        .and_then(|mut statement| statement.execute([signed(before_ms), passed]))
        .map_err(during("forgetting a log"))?;
    Ok(())
}

/// Moves a reader's watermark, forward only.
pub(super) fn set_watermark(connection: &Connection, reader: &str, seq: i64) -> Result<(), Error> {
    connection
        .prepare_cached(
            "INSERT INTO watermarks (reader, seq) VALUES (?1, ?2)
             ON CONFLICT (reader) DO UPDATE SET seq = max(seq, excluded.seq)",
        )
        .and_then(|mut statement| statement.execute(params![reader, seq]))
        .map_err(during("moving a watermark"))?;
    Ok(())
}

/// The most strays that are kept; the oldest go first.
const STRAYS_KEPT: i64 = 10_000;

/// Keeps a message that belongs to nothing.
pub(super) fn record_stray(connection: &Connection, stray: &Stray) -> Result<(), Error> {
    connection
        .prepare_cached("INSERT INTO strays (at_ms, queue, reason, headers, body) VALUES (?1, ?2, ?3, ?4, ?5)")
        .and_then(|mut statement| {
            statement.execute(params![signed(stray.now_ms), stray.queue, stray.reason, stray.headers, stray.body])
        })
        .map_err(during("keeping a stray message"))?;
    connection
        .prepare_cached("DELETE FROM strays WHERE seq <= (SELECT max(seq) FROM strays) - ?1")
        .and_then(|mut statement| statement.execute([STRAYS_KEPT]))
        .map_err(during("forgetting old strays"))?;
    Ok(())
}
