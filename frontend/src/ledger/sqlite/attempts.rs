//! Rows of attempts: the one in flight, and how earlier ones ended.

use forecastle_protos::ids::{RunId, ShardId};
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::chunk::{self, AttemptBody};
use super::{during, signed};
use crate::ledger::{Counters, Error};

/// An attempt that is in flight, as stored.
pub(super) struct Current {
    pub(super) attempt: u32,
    pub(super) claimed: bool,
    pub(super) body: AttemptBody,
}

/// The attempt that is in flight.
pub(super) fn current(connection: &Connection, seq: i64, shard: ShardId) -> Result<Option<Current>, Error> {
    let row: Option<(u32, bool, Vec<u8>)> = connection
        .prepare_cached("SELECT attempt, claimed, body FROM attempts WHERE request = ?1 AND stage = ?2 AND shard = ?3")
        .and_then(|mut statement| {
            statement
                .query_row(params![seq, shard.stage, shard.index], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
                .optional()
        })
        .map_err(during("reading an attempt"))?;
    row.map(|(attempt, claimed, body)| Ok(Current { attempt, claimed, body: chunk::decode(&body, "an attempt")? }))
        .transpose()
}

/// Whether a run of this attempt is live.
pub(super) fn has_other_runs(connection: &Connection, seq: i64, shard: ShardId, attempt: u32) -> Result<bool, Error> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM runs WHERE request = ?1 AND stage = ?2 AND shard = ?3 AND attempt = ?4)",
        )
        .and_then(|mut s| s.query_row(params![seq, shard.stage, shard.index, attempt], |row| row.get(0)))
        .map_err(during("looking for other runs"))
}

/// Ends the attempt that is in flight; `for_good` forgets how earlier ones ended, too.
pub(super) fn forget_attempt(connection: &Connection, seq: i64, shard: ShardId, for_good: bool) -> Result<(), Error> {
    let key = params![seq, shard.stage, shard.index];
    connection
        .prepare_cached("DELETE FROM attempts WHERE request = ?1 AND stage = ?2 AND shard = ?3")
        .and_then(|mut statement| statement.execute(key))
        .map_err(during("ending an attempt"))?;
    if for_good {
        connection
            .prepare_cached("DELETE FROM exceptions WHERE request = ?1 AND stage = ?2 AND shard = ?3")
            .and_then(|mut statement| statement.execute(key))
            .map_err(during("ending an attempt"))?;
    }
    Ok(())
}

/// How earlier attempts of a shard ended.
pub(super) fn counters(connection: &Connection, seq: i64, shard: ShardId) -> Result<Counters, Error> {
    connection
        .prepare_cached(
            "SELECT errors, out_of_memory, timeouts, lost, uncounted, returned FROM exceptions
             WHERE request = ?1 AND stage = ?2 AND shard = ?3",
        )
        .and_then(|mut statement| {
            statement
                .query_row(params![seq, shard.stage, shard.index], |row| {
                    Ok(Counters {
                        errors: row.get(0)?,
                        out_of_memory: row.get(1)?,
                        timeouts: row.get(2)?,
                        lost: row.get(3)?,
                        uncounted: row.get(4)?,
                        returned: row.get(5)?,
                    })
                })
                .optional()
        })
        .map(Option::unwrap_or_default)
        .map_err(during("reading what failed before"))
}

/// Records how the attempts of a shard have ended so far.
pub(super) fn count_failure(
    connection: &Connection,
    seq: i64,
    shard: ShardId,
    attempts: u32,
    last: &AttemptBody,
    counters: Counters,
    not_before_ms: Option<u64>,
) -> Result<(), Error> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO exceptions
                 (request, stage, shard, attempts, errors, out_of_memory, timeouts, lost, uncounted, returned,
                  not_before_ms, last)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                seq,
                shard.stage,
                shard.index,
                attempts,
                counters.errors,
                counters.out_of_memory,
                counters.timeouts,
                counters.lost,
                counters.uncounted,
                counters.returned,
                not_before_ms.map(signed),
                last.encode_to_vec()
            ])
        })
        .map_err(during("recording a failure"))?;
    Ok(())
}

/// Remembers that a run was declared to have ended: nobody saw to what it left.
pub(super) fn give_up(connection: &Connection, request: i64, shard: ShardId, run: RunId) -> Result<(), Error> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO given_up (run_id, request, stage, shard) VALUES (?1, ?2, ?3, ?4)")
        .and_then(|mut statement| statement.execute(params![run.0, request, shard.stage, shard.index]))
        .map_err(during("giving up a run"))?;
    Ok(())
}
