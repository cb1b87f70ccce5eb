//! Applying events of runs: what a claim and an ending mean for the shard, its stage and its request.

use forecastle_protos::ids::{RunId, ShardId};
use forecastle_protos::v1::{self, Outcome};
use forecastle_resources::Reservation;
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::attempts::{Current, count_failure, counters, current, forget_attempt, give_up, has_other_runs};
use super::batch::{Batch, RequestRow};
use super::{chunk, dead, during, signed, unsigned};
use crate::ledger::{
    BackingOff, Changes, Error, EventKind, Failure, NextStep, ReadyRange, RetryPolicy, RunEvent, ShardEvent, ShardState,
};

/// Applies `events` in order.
pub(super) fn apply(
    connection: &Connection,
    policy: &dyn RetryPolicy,
    events: &[RunEvent],
    now_ms: u64,
) -> Result<Changes, Error> {
    let mut batch = Batch::new(connection);
    for event in events {
        let shard = event.shard;
        let request = batch.request(shard.request)?;
        let state = match &request {
            Some(request) => batch.state(request.seq, shard.stage, shard.index)?,
            None => None,
        };
        let (Some(request), Some(state)) = (request, state) else {
            batch.changes.strays += 1;
            continue;
        };
        match &event.kind {
            EventKind::Claimed => claimed(&mut batch, &request, state, event, now_ms)?,
            EventKind::Completed(completed) => {
                ended(&mut batch, policy, &request, state, event, completed, now_ms)?;
            }
        }
    }
    batch.finish()
}

fn claimed(
    batch: &mut Batch<'_>,
    request: &RequestRow,
    state: ShardState,
    event: &RunEvent,
    now_ms: u64,
) -> Result<(), Error> {
    if recorded(batch.connection, event.run)?.is_some() {
        // Its ending arrived first, or this is a repetition.
        batch.changes.duplicates += 1;
        return Ok(());
    }
    let shard = event.shard;
    let current = current(batch.connection, request.seq, shard)?;
    let wanted = state == ShardState::InFlight && current.as_ref().is_some_and(|c| c.attempt == event.attempt);
    let inserted = batch
        .connection
        .prepare_cached(
            "INSERT INTO runs (run_id, request, stage, shard, attempt, worker, claimed_ms, unwanted)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                event.run.0,
                request.seq,
                shard.stage,
                shard.index,
                event.attempt,
                event.worker.0,
                signed(now_ms),
                !wanted
            ])
        })
        .map_err(during("recording a claim"))?;
    if inserted == 0 {
        batch.changes.duplicates += 1;
        return Ok(());
    }
    if !wanted {
        batch.changes.unwanted.push(event.run);
        return Ok(());
    }
    if current.is_some_and(|c| !c.claimed) {
        batch
            .connection
            .prepare_cached(
                "UPDATE attempts SET claimed = 1, confirmed = 1 WHERE request = ?1 AND stage = ?2 AND shard = ?3",
            )
            .and_then(|mut s| s.execute(params![request.seq, shard.stage, shard.index]))
            .map_err(during("marking an attempt as claimed"))?;
        batch.changes.left_queue.push((shard, event.attempt));
    }
    Ok(())
}

/// Records the end of a run, and what follows for its attempt.
pub(super) fn ended(
    batch: &mut Batch<'_>,
    policy: &dyn RetryPolicy,
    request: &RequestRow,
    state: ShardState,
    event: &RunEvent,
    completed: &v1::Completed,
    now_ms: u64,
) -> Result<(), Error> {
    let shard = event.shard;
    let outcome = completed.outcome();
    match recorded(batch.connection, event.run)? {
        // The ledger gave the run up, and its worker has answered after all: its own word counts, under a new number,
        // so that readers who passed the old one see it. The gap is noted, so that what waits can be counted.
        Some(Recorded { seq, declared: true, .. }) if !completed.declared => {
            for sql in ["DELETE FROM events WHERE seq = ?1", "INSERT INTO event_gaps (seq) VALUES (?1)"] {
                batch
                    .connection
                    .prepare_cached(sql)
                    .and_then(|mut statement| statement.execute([seq]))
                    .map_err(during("replacing an event"))?;
            }
        }
        Some(_) => {
            batch.changes.duplicates += 1;
            return Ok(());
        }
        None => {}
    }
    batch
        .connection
        .prepare_cached("DELETE FROM runs WHERE run_id = ?1")
        .and_then(|mut statement| statement.execute([event.run.0]))
        .map_err(during("ending a run"))?;

    let current = current(batch.connection, request.seq, shard)?;
    let wins = outcome == Outcome::Succeeded && state.on(ShardEvent::Succeed).is_ok();
    record_event(batch, request, event, completed, current.as_ref(), wins)?;
    batch.touch(request.id);
    if outcome == Outcome::OutOfMemory {
        batch
            .connection
            .prepare_cached("UPDATE requests SET oom_retries = oom_retries + 1 WHERE seq = ?1")
            .and_then(|mut statement| statement.execute([request.seq]))
            .map_err(during("counting a kill for memory"))?;
    }

    if wins {
        return succeed(batch, request, shard, current.as_ref(), now_ms);
    }
    // Only the end of the attempt that is in flight orders another; whatever else ended is history.
    match current {
        Some(mut current)
            if outcome != Outcome::Succeeded
                && state == ShardState::InFlight
                && current.attempt == event.attempt
                && !has_other_runs(batch.connection, request.seq, shard, event.attempt)? =>
        {
            // The word of a run that was stopped is newer. A task that failed may have failed for the checkpoint that it
            // was given: the next attempt begins anew.
            if outcome == Outcome::TaskError {
                current.body.checkpoint = None;
            } else if completed.checkpoint.is_some() {
                current.body.checkpoint.clone_from(&completed.checkpoint);
            }
            let current = with_what_was_too_little(current, completed);
            fail_attempt(batch, policy, request, shard, &current, outcome, &completed.error, now_ms)
        }
        _ => Ok(()),
    }
}

/// The attempt as if it had reserved what its lease held when it was killed for memory, if that was more: the next one
/// needs more than that, and a unit whose lease grew to its maximum has had all there is.
fn with_what_was_too_little(mut current: Current, completed: &v1::Completed) -> Current {
    let held = completed.adjustments.last().and_then(|change| change.to.as_ref()).map(|vector| vector.memory_bytes);
    let reserved = current.body.reservation.as_mut().and_then(|reservation| reservation.vector.as_mut());
    if completed.outcome() == Outcome::OutOfMemory
        && let (Some(held), Some(reserved)) = (held, reserved)
    {
        reserved.memory_bytes = reserved.memory_bytes.max(held);
    }
    current
}

/// Takes back an attempt whose message came back unclaimed.
pub(super) fn take_back(
    connection: &Connection,
    policy: &dyn RetryPolicy,
    shard: ShardId,
    attempt: u32,
    outcome: Outcome,
    reason: &str,
    now_ms: u64,
) -> Result<Changes, Error> {
    let mut batch = Batch::new(connection);
    match batch.request(shard.request)? {
        Some(request) => {
            if let Some(current) = unclaimed(&mut batch, &request, shard, attempt)? {
                fail_attempt(&mut batch, policy, &request, shard, &current, outcome, reason, now_ms)?;
            }
        }
        None => batch.changes.strays += 1,
    }
    batch.finish()
}

/// The attempt, if it is in flight and nobody has claimed it.
pub(super) fn unclaimed(
    batch: &mut Batch<'_>,
    request: &RequestRow,
    shard: ShardId,
    attempt: u32,
) -> Result<Option<Current>, Error> {
    let in_flight = batch.state(request.seq, shard.stage, shard.index)? == Some(ShardState::InFlight);
    let current = current(batch.connection, request.seq, shard)?;
    Ok(current.filter(|current| in_flight && current.attempt == attempt && !current.claimed))
}

fn succeed(
    batch: &mut Batch<'_>,
    request: &RequestRow,
    shard: ShardId,
    current: Option<&Current>,
    now_ms: u64,
) -> Result<(), Error> {
    if batch.transition(request.seq, shard.stage, shard.index, ShardEvent::Succeed)?.is_err() {
        return Ok(());
    }
    if let Some(current) = current.filter(|current| !current.claimed) {
        batch.changes.left_queue.push((shard, current.attempt));
    }
    forget_attempt(batch.connection, request.seq, shard, true)?;
    super::ending::mark_unwanted(batch, request.seq, Some((shard.stage, shard.index)))?;
    let complete: bool = batch
        .connection
        .prepare_cached(
            "UPDATE stages SET succeeded = succeeded + 1 WHERE request = ?1 AND stage = ?2
             RETURNING succeeded = shards",
        )
        .and_then(|mut statement| statement.query_row(params![request.seq, shard.stage], |row| row.get(0)))
        .map_err(during("counting a success"))?;
    if complete {
        super::ending::fire_stages(batch, request, now_ms)?;
    }
    Ok(())
}

/// Ends the attempt in flight without success, and decides what follows.
#[expect(clippy::too_many_arguments, reason = "one call site each; a struct would only rename the arguments")]
pub(super) fn fail_attempt(
    batch: &mut Batch<'_>,
    policy: &dyn RetryPolicy,
    request: &RequestRow,
    shard: ShardId,
    current: &Current,
    outcome: Outcome,
    error: &str,
    now_ms: u64,
) -> Result<(), Error> {
    let unit = batch.shard_body(request.seq, shard.stage, shard.index)?.unit;
    let counters = counters(batch.connection, request.seq, shard)?.with(outcome);
    let reservation: Reservation = current.body.reservation.as_ref().map(Into::into).unwrap_or_default();
    let next = policy.after(&Failure {
        request_type: &request.request_type,
        unit: &unit,
        attempt: current.attempt,
        outcome,
        error,
        counters,
        reservation: &reservation,
        now_ms,
    });
    if !current.claimed {
        batch.changes.left_queue.push((shard, current.attempt));
    }
    forget_attempt(batch.connection, request.seq, shard, false)?;
    match next {
        NextStep::Retry { not_before_ms } if not_before_ms <= now_ms => {
            count_failure(batch.connection, request.seq, shard, current.attempt, &current.body, counters, None)?;
            if batch.transition(request.seq, shard.stage, shard.index, ShardEvent::TryAgain)?.is_ok() {
                let (request, stage, first) = (shard.request, shard.stage, shard.index);
                batch.changes.ready.push(ReadyRange { request, stage, first, count: 1 });
            }
        }
        NextStep::Retry { not_before_ms } => {
            let at = Some(not_before_ms);
            count_failure(batch.connection, request.seq, shard, current.attempt, &current.body, counters, at)?;
            if batch.transition(request.seq, shard.stage, shard.index, ShardEvent::TryLater)?.is_ok() {
                batch.changes.backing_off.push(BackingOff { shard, not_before_ms });
            }
        }
        NextStep::Fail { code, message } => {
            count_failure(batch.connection, request.seq, shard, current.attempt, &current.body, counters, None)?;
            let death = dead::Death { unit: &unit, attempts: current.attempt, counters, code, why: &message };
            dead::die(batch, request, shard, &death, now_ms)?;
        }
    }
    Ok(())
}

/// An ending that the ledger has recorded.
struct Recorded {
    seq: i64,
    outcome: i32,
    /// The ledger said so, not a worker.
    declared: bool,
}

/// Whether the ledger has declared that a run timed out.
pub(super) fn timed_out(connection: &Connection, run: RunId) -> Result<bool, Error> {
    let end = recorded(connection, run)?;
    Ok(end.is_some_and(|end| end.declared && end.outcome == Outcome::Timeout as i32))
}

/// How a run ended, if the ledger has recorded it.
fn recorded(connection: &Connection, run: RunId) -> Result<Option<Recorded>, Error> {
    let found: Option<(i64, i32, Vec<u8>)> = connection
        .prepare_cached("SELECT seq, outcome, body FROM events WHERE run_id = ?1")
        .and_then(|mut statement| {
            statement.query_row([run.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
        .map_err(during("looking for an event"))?;
    let Some((seq, outcome, body)) = found else { return Ok(None) };
    let event: v1::RunEvent = chunk::decode(&body, "an event")?;
    let said = matches!(event.kind, Some(v1::run_event::Kind::Completed(completed)) if completed.declared);
    // Before events were marked, a lost worker was all that was ever declared.
    Ok(Some(Recorded { seq, outcome, declared: said || outcome == Outcome::WorkerLost as i32 }))
}

fn record_event(
    batch: &mut Batch<'_>,
    request: &RequestRow,
    event: &RunEvent,
    completed: &v1::Completed,
    current: Option<&Current>,
    winning: bool,
) -> Result<(), Error> {
    let mut message = v1::RunEvent::from(event);
    if completed.declared {
        // Nobody else will say what this run was: the ledger fills in what it knows.
        let unit = batch.shard_body(request.seq, event.shard.stage, event.shard.index)?.unit;
        let body = current.filter(|c| c.attempt == event.attempt).map(|c| &c.body);
        if let Some(v1::run_event::Kind::Completed(completed)) = &mut message.kind {
            completed.request_type.clone_from(&request.request_type);
            completed.tenant.clone_from(&request.tenant);
            completed.priority.clone_from(&request.priority);
            completed.unit = unit;
            completed.stage = stage_name(batch.connection, request.seq, event.shard.stage)?;
            completed.reservation = body.and_then(|b| b.reservation.clone());
            completed.forecast = body.and_then(|b| b.forecast.clone());
            completed.size_class = body.map(|b| b.class.clone()).unwrap_or_default();
        }
        give_up(batch.connection, request.seq, event.shard, event.run)?;
    }
    batch
        .connection
        .prepare_cached(
            "INSERT INTO events (run_id, request, stage, shard, outcome, winning, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                event.run.0,
                request.seq,
                event.shard.stage,
                event.shard.index,
                completed.outcome,
                winning,
                message.encode_to_vec()
            ])
        })
        .map_err(during("recording an event"))?;
    batch.changes.recorded += 1;
    Ok(())
}

fn stage_name(connection: &Connection, seq: i64, stage: u32) -> Result<String, Error> {
    connection
        .prepare_cached("SELECT name FROM stages WHERE request = ?1 AND stage = ?2")
        .and_then(|mut statement| statement.query_row(params![seq, stage], |row| row.get(0)))
        .map_err(during("reading a stage"))
}

/// Decodes a recorded event's row.
pub(super) fn decode_event(seq: i64, winning: bool, body: &[u8]) -> Result<crate::ledger::RecordedEvent, Error> {
    let message: v1::RunEvent = chunk::decode(body, "an event")?;
    let event = RunEvent::try_from(message).map_err(|error| Error::Corrupt(format!("event {seq}: {error}")))?;
    Ok(crate::ledger::RecordedEvent { seq, winning, event })
}

/// A live run from its row.
pub(super) fn live_run(row: &rusqlite::Row<'_>) -> rusqlite::Result<crate::ledger::LiveRun> {
    let (run, request, worker): (Uuid, Uuid, Uuid) = (row.get(0)?, row.get(1)?, row.get(5)?);
    Ok(crate::ledger::LiveRun {
        run: RunId(run),
        shard: super::batch::shard_id(request, row.get(2)?, row.get(3)?),
        attempt: row.get(4)?,
        worker: forecastle_protos::ids::WorkerId(worker),
        claimed_ms: unsigned(row.get(6)?),
        unwanted: row.get(7)?,
    })
}
