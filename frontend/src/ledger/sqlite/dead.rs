//! Shards that fail for good: how they die, are replayed and are forgotten.

use forecastle_protos::ids::ShardId;
use forecastle_protos::v1::{self, RequestState};
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::batch::{Batch, RequestRow, shard_id};
use super::queries::rows;
use super::{attempts, chunk, decisions, during, ending, release, signed, unsigned};
use crate::ledger::{
    Changes, Counters, DeadListing, DeadShard, Decision, DecisionKind, Error, NotDead, ReadyRange, Replay, ShardEvent,
    ShardState,
};

/// How a shard dies.
pub(super) struct Death<'a> {
    pub(super) unit: &'a str,
    /// Attempts ordered so far.
    pub(super) attempts: u32,
    pub(super) counters: Counters,
    pub(super) code: &'static str,
    pub(super) why: &'a str,
}

/// The code of shards that took down too many workers.
const POISON: &str = "poison";

/// The shard has failed for good, and with it its request.
pub(super) fn die(
    batch: &mut Batch<'_>,
    request: &RequestRow,
    shard: ShardId,
    death: &Death<'_>,
    now_ms: u64,
) -> Result<(), Error> {
    if batch.transition(request.seq, shard.stage, shard.index, ShardEvent::Fail)?.is_err() {
        return Ok(());
    }
    let error = v1::ErrorDetail {
        code: death.code.to_owned(),
        message: format!("shard {shard} ({}): {}", death.unit, death.why),
        field: String::new(),
    };
    batch
        .connection
        .prepare_cached(
            "INSERT OR REPLACE INTO dead (tenant, type, request, stage, shard, code, error, died_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                request.tenant,
                request.request_type,
                request.seq,
                shard.stage,
                shard.index,
                death.code,
                error.encode_to_vec(),
                signed(now_ms)
            ])
        })
        .map_err(during("recording a dead shard"))?;
    let kind = if death.code == POISON { DecisionKind::Poisoned } else { DecisionKind::Dead };
    let counters = death.counters;
    let evidence = serde_json::json!({
        "code": death.code,
        "errors": counters.errors,
        "outOfMemory": counters.out_of_memory,
        "timeouts": counters.timeouts,
        "lost": counters.lost,
        "returned": counters.returned,
        "uncounted": counters.uncounted,
    });
    let decision = about(kind, shard, death.attempts, death.why, evidence.to_string(), now_ms);
    decisions::log(batch, request, death.unit, &decision)?;
    ending::end_request(batch, request, RequestState::Failed, Some(&error), now_ms)
}

fn about(kind: DecisionKind, shard: ShardId, attempt: u32, why: &str, evidence: String, at_ms: u64) -> Decision {
    Decision { kind, shard, attempt, run: None, worker: None, why: why.to_owned(), evidence, usage: None, at_ms }
}

/// Ends a shard that is ready and that nobody can ever run.
pub(super) fn refuse(
    connection: &Connection,
    shard: ShardId,
    code: &'static str,
    why: &str,
    now_ms: u64,
) -> Result<Changes, Error> {
    let mut batch = Batch::new(connection);
    let Some(request) = batch.request(shard.request)? else { return batch.finish() };
    if batch.state(request.seq, shard.stage, shard.index)? == Some(ShardState::Ready) {
        let unit = batch.shard_body(request.seq, shard.stage, shard.index)?.unit;
        let attempts = release::attempts_ended(connection, request.seq, shard)?;
        let counters = attempts::counters(connection, request.seq, shard)?;
        die(&mut batch, &request, shard, &Death { unit: &unit, attempts, counters, code, why }, now_ms)?;
    }
    batch.finish()
}

/// Reopens the request of a dead shard.
pub(super) fn replay(connection: &Connection, shard: ShardId, now_ms: u64) -> Result<Result<Replay, NotDead>, Error> {
    let mut batch = Batch::new(connection);
    let Some(request) = batch.request(shard.request)? else { return Ok(Err(NotDead::Unknown(shard))) };
    if !is_dead(connection, request.seq, shard)? {
        return Ok(Err(NotDead::Unknown(shard)));
    }
    if let Some(reason) = closed(connection, &request, now_ms)? {
        return Ok(Err(NotDead::NotReplayable { shard, reason }));
    }
    forget(connection, request.seq, shard)?;
    connection
        .prepare_cached(
            "UPDATE exceptions
             SET errors = 0, out_of_memory = 0, timeouts = 0, lost = 0, uncounted = 0, returned = 0
             WHERE request = ?1 AND stage = ?2 AND shard = ?3",
        )
        .and_then(|mut statement| statement.execute(params![request.seq, shard.stage, shard.index]))
        .map_err(during("giving fresh budgets"))?;
    // A reply that is still owed would tell of a failure that is being mended; the next end owes one again.
    connection
        .prepare_cached(
            "UPDATE requests SET state = ?2, finished_ms = NULL, error = NULL, reply_state = 0 WHERE seq = ?1",
        )
        .and_then(|mut statement| statement.execute(params![request.seq, RequestState::Running as i32]))
        .map_err(during("reopening a request"))?;
    batch.forget(request.id);
    batch.touch(request.id);
    batch.transition_all(request.seq, None, ShardEvent::Reopen)?;
    let fired: Vec<u32> = rows(
        connection,
        "reading stages",
        "SELECT stage FROM stages WHERE request = ?1 AND fired = 1 ORDER BY stage",
        [request.seq],
        |row| row.get(0),
    )?;
    for stage in fired {
        batch.transition_all(request.seq, Some(stage), ShardEvent::Fire)?;
        for (first, count) in batch.ranges(request.seq, stage, ShardState::Ready)? {
            batch.changes.ready.push(ReadyRange { request: request.id, stage, first, count });
        }
    }
    let attempt = release::attempts_ended(connection, request.seq, shard)? + 1;
    let unit = batch.shard_body(request.seq, shard.stage, shard.index)?.unit;
    let why = "replayed on demand, with fresh budgets";
    let decision = about(DecisionKind::Replayed, shard, attempt, why, "{}".to_owned(), now_ms);
    decisions::log(&mut batch, &request, &unit, &decision)?;
    Ok(Ok(Replay { request: request.id, attempt, changes: batch.finish()? }))
}

/// Why a request takes no attempt any more.
fn closed(connection: &Connection, request: &RequestRow, now_ms: u64) -> Result<Option<String>, Error> {
    if request.state != RequestState::Failed {
        return Ok(Some("its request has not failed; only a request that failed can be reopened".to_owned()));
    }
    let deadline: Option<i64> = connection
        .prepare_cached("SELECT deadline_ms FROM requests WHERE seq = ?1")
        .and_then(|mut statement| statement.query_row([request.seq], |row| row.get(0)))
        .map_err(during("reading a deadline"))?;
    let passed = deadline.is_some_and(|deadline| unsigned(deadline) <= now_ms);
    Ok(passed.then(|| "its request's deadline has passed; submit it again with another".to_owned()))
}

/// Forgets a dead shard on demand.
pub(super) fn purge(connection: &Connection, shard: ShardId, now_ms: u64) -> Result<Result<(), NotDead>, Error> {
    let mut batch = Batch::new(connection);
    let Some(request) = batch.request(shard.request)? else { return Ok(Err(NotDead::Unknown(shard))) };
    if !forget(connection, request.seq, shard)? {
        return Ok(Err(NotDead::Unknown(shard)));
    }
    let attempts = release::attempts_ended(connection, request.seq, shard)?;
    let unit = batch.shard_body(request.seq, shard.stage, shard.index)?.unit;
    let decision = about(DecisionKind::Purged, shard, attempts, "forgotten on demand", "{}".to_owned(), now_ms);
    decisions::log(&mut batch, &request, &unit, &decision)?;
    batch.finish()?;
    Ok(Ok(()))
}

fn is_dead(connection: &Connection, seq: i64, shard: ShardId) -> Result<bool, Error> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM dead WHERE request = ?1 AND stage = ?2 AND shard = ?3)")
        .and_then(|mut s| s.query_row(params![seq, shard.stage, shard.index], |row| row.get(0)))
        .map_err(during("looking for a dead shard"))
}

fn forget(connection: &Connection, seq: i64, shard: ShardId) -> Result<bool, Error> {
    connection
        .prepare_cached("DELETE FROM dead WHERE request = ?1 AND stage = ?2 AND shard = ?3")
        .and_then(|mut s| s.execute(params![seq, shard.stage, shard.index]))
        .map(|deleted| deleted > 0)
        .map_err(during("forgetting a dead shard"))
}

const DEAD: &str = "SELECT d.seq, r.id, d.stage, d.shard, d.type, s.name, d.error, d.code, d.died_ms, d.request
     FROM dead d JOIN requests r ON r.seq = d.request JOIN stages s ON s.request = d.request AND s.stage = d.stage";

type Stored = (DeadShard, i64, Option<Vec<u8>>);

fn read(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let dead = DeadShard {
        seq: row.get(0)?,
        shard: shard_id(row.get(1)?, row.get(2)?, row.get(3)?),
        request_type: row.get(4)?,
        stage: row.get(5)?,
        unit: String::new(),
        reason: v1::ErrorDetail { code: row.get(7)?, ..v1::ErrorDetail::default() },
        died_ms: unsigned(row.get(8)?),
        attempts: 0,
        counters: Counters::default(),
    };
    Ok((dead, row.get(9)?, row.get(6)?))
}

fn complete(connection: &Connection, (mut dead, seq, error): Stored) -> Result<DeadShard, Error> {
    if let Some(error) = error {
        dead.reason = chunk::decode(&error, "an error")?;
    }
    dead.unit = Batch::new(connection).shard_body(seq, dead.shard.stage, dead.shard.index)?.unit;
    dead.attempts = release::attempts_ended(connection, seq, dead.shard)?;
    dead.counters = attempts::counters(connection, seq, dead.shard)?;
    Ok(dead)
}

/// A page of dead shards, the latest first.
pub(super) fn list(connection: &Connection, listing: &DeadListing) -> Result<(Vec<DeadShard>, Option<i64>), Error> {
    let stored: Vec<Stored> = rows(
        connection,
        "listing dead shards",
        &format!(
            "{DEAD} WHERE d.tenant = ?1 AND (?2 IS NULL OR d.type = ?2) AND (?3 IS NULL OR d.code = ?3)
             AND (?4 IS NULL OR d.died_ms < ?4) AND (?5 IS NULL OR d.seq < ?5) ORDER BY d.seq DESC LIMIT ?6"
        ),
        params![
            listing.tenant,
            listing.request_type,
            listing.reason,
            listing.died_before_ms.map(signed),
            listing.before,
            i64::from(listing.limit) + 1
        ],
        read,
    )?;
    let limit = listing.limit as usize;
    let next = (stored.len() > limit && limit > 0).then(|| stored[limit - 1].0.seq);
    let page = stored.into_iter().take(limit).map(|stored| complete(connection, stored)).collect::<Result<_, _>>()?;
    Ok((page, next))
}

/// One dead shard, with what was decided of it.
pub(super) fn show(connection: &Connection, shard: ShardId) -> Result<Option<(DeadShard, Vec<Decision>)>, Error> {
    let found = connection
        .prepare_cached(&format!("{DEAD} WHERE r.id = ?1 AND d.stage = ?2 AND d.shard = ?3"))
        .and_then(|mut s| s.query_row(params![shard.request.0, shard.stage, shard.index], read).optional())
        .map_err(during("reading a dead shard"))?;
    let Some(stored) = found else { return Ok(None) };
    Ok(Some((complete(connection, stored)?, decisions::of(connection, shard)?)))
}
