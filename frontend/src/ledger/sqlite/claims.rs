//! Who holds what: live runs with what is reserved for them, and attempts that nobody claimed.

use std::ops::RangeInclusive;

use forecastle_protos::ids::{RunId, ShardId};
use rusqlite::{Connection, params};

use super::batch::{Batch, shard_id};
use super::chunk::{self, AttemptBody};
use super::queries::rows;
use super::{apply, during};
use crate::ledger::{Claim, Error, LeftBehind, LiveRun, ShardEvent, Unclaimed};

/// Every live run, with what its attempt was ordered with if that is still in flight.
pub(super) fn claims(connection: &Connection) -> Result<Vec<Claim>, Error> {
    let stored: Vec<(LiveRun, Option<Vec<u8>>)> = rows(
        connection,
        "listing claims",
        "SELECT u.run_id, r.id, u.stage, u.shard, u.attempt, u.worker, u.claimed_ms, u.unwanted, a.body
         FROM runs u JOIN requests r ON r.seq = u.request
         LEFT JOIN attempts a ON a.request = u.request AND a.stage = u.stage AND a.shard = u.shard
              AND a.attempt = u.attempt",
        [],
        |row| Ok((apply::live_run(row)?, row.get(8)?)),
    )?;
    stored
        .into_iter()
        .map(|(run, body)| {
            let body: Option<AttemptBody> = body.map(|body| chunk::decode(&body, "an attempt")).transpose()?;
            Ok(Claim {
                run,
                timeout_ms: body.as_ref().map_or(0, |body| body.timeout_ms),
                reservation: body.and_then(|body| body.reservation.as_ref().map(Into::into)),
            })
        })
        .collect()
}

/// Of runs that workers have, those whose end would change nothing.
pub(super) fn of_no_use(connection: &Connection, runs: Vec<(RunId, ShardId)>) -> Result<Vec<RunId>, Error> {
    let mut batch = Batch::new(connection);
    let mut found = Vec::new();
    for (run, shard) in runs {
        let state = match batch.request(shard.request)? {
            Some(request) => batch.state(request.seq, shard.stage, shard.index)?,
            None => None,
        };
        let open = state.is_some_and(|state| state.on(ShardEvent::Succeed).is_ok());
        if !open || apply::timed_out(connection, run)? {
            found.push(run);
        }
    }
    Ok(found)
}

/// Runs that were given up and whose shard has ended since.
pub(super) fn left_behind(connection: &Connection, limit: u32) -> Result<Vec<LeftBehind>, Error> {
    rows(
        connection,
        "listing runs that were given up",
        "SELECT r.id, g.stage, g.shard, g.run_id,
                EXISTS (SELECT 1 FROM events e WHERE e.run_id = g.run_id AND e.winning = 1)
         FROM given_up g JOIN requests r ON r.seq = g.request
         JOIN chunks c ON c.request = g.request AND c.stage = g.stage AND c.chunk = g.shard / ?1
         WHERE substr(c.states, g.shard % ?1 + 1, 1) IN (x'04', x'05', x'06') LIMIT ?2",
        params![chunk::SHARDS, limit],
        |row| {
            let shard = shard_id(row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(LeftBehind { shard, run: RunId(row.get(3)?), won: row.get(4)? })
        },
    )
}

/// Forgets runs that were given up.
pub(super) fn forget_left_behind(connection: &Connection, runs: &[RunId]) -> Result<(), Error> {
    for run in runs {
        connection
            .prepare_cached("DELETE FROM given_up WHERE run_id = ?1")
            .and_then(|mut statement| statement.execute([run.0]))
            .map_err(during("forgetting a run that was given up"))?;
    }
    Ok(())
}

/// Attempts that the broker has and that nobody claimed, without those that were ordered lately.
pub(super) fn unclaimed(connection: &Connection, lately: &RangeInclusive<u64>) -> Result<Vec<Unclaimed>, Error> {
    let stored: Vec<(Unclaimed, Vec<u8>)> = rows(
        connection,
        "listing unclaimed attempts",
        "SELECT r.id, a.stage, a.shard, a.attempt, a.body FROM attempts a JOIN requests r ON r.seq = a.request
         WHERE a.claimed = 0 AND a.confirmed = 1",
        [],
        |row| {
            let shard = shard_id(row.get(0)?, row.get(1)?, row.get(2)?);
            let unclaimed = Unclaimed { shard, attempt: row.get(3)?, queue: String::new(), released_ms: 0 };
            Ok((unclaimed, row.get(4)?))
        },
    )?;
    let mut found = Vec::new();
    for (unclaimed, body) in stored {
        let body: AttemptBody = chunk::decode(&body, "an attempt")?;
        if !lately.contains(&body.released_ms) {
            found.push(Unclaimed { queue: body.queue, released_ms: body.released_ms, ..unclaimed });
        }
    }
    Ok(found)
}

/// How many events a reader has not read: all numbers since, without those that were replaced. (What retention
/// removed, every reader had read.)
pub(super) fn lag(connection: &Connection, reader: &str) -> Result<u64, Error> {
    let lag: i64 = connection
        .prepare_cached(
            "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0) - read.seq
                    - (SELECT count(*) FROM event_gaps g WHERE g.seq > read.seq)
             FROM (SELECT coalesce((SELECT seq FROM watermarks WHERE reader = ?1), 0) AS seq) read",
        )
        .and_then(|mut statement| statement.query_row([reader], |row| row.get(0)))
        .map_err(during("counting what a reader has not read"))?;
    Ok(u64::try_from(lag).unwrap_or(0))
}
