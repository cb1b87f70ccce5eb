//! Carrying out what was decided, and the log of it.

use forecastle_protos::ids::{RequestId, RunId, ShardId, WorkerId};
use forecastle_protos::v1::Outcome;
use prost::Message as _;
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use super::batch::{Batch, RequestRow, shard_id};
use super::queries::rows;
use super::{apply, chunk, during, signed, unsigned};
use crate::ledger::{
    Decided, Decision, DecisionKind, Error, EventKind, RecordedDecision, RecordedStage, RetryPolicy, RunEvent,
    StageForecast,
};

/// Carries out decisions in order. One whose run has ended or whose attempt was claimed meanwhile is left out.
pub(super) fn decide(
    connection: &Connection,
    policy: &dyn RetryPolicy,
    decisions: Vec<Decision>,
    now_ms: u64,
) -> Result<Decided, Error> {
    let mut batch = Batch::new(connection);
    let mut made = Vec::new();
    for decision in decisions {
        if carry_out(&mut batch, policy, &decision, now_ms)? {
            made.push(decision);
        }
    }
    Ok(Decided { changes: batch.finish()?, made })
}

fn carry_out(batch: &mut Batch<'_>, policy: &dyn RetryPolicy, decision: &Decision, now_ms: u64) -> Result<bool, Error> {
    let shard = decision.shard;
    let Some(request) = batch.request(shard.request)? else { return Ok(false) };
    let Some(state) = batch.state(request.seq, shard.stage, shard.index)? else { return Ok(false) };
    let unit = |batch: &Batch<'_>| batch.shard_body(request.seq, shard.stage, shard.index).map(|body| body.unit);
    match (decision.kind, decision.run, decision.worker) {
        (DecisionKind::Stuck, ..) => {
            let Some(current) = apply::unclaimed(batch, &request, shard, decision.attempt)? else { return Ok(false) };
            let unit = unit(batch)?;
            log(batch, &request, &unit, decision)?;
            let outcome = Outcome::Unsupported;
            apply::fail_attempt(batch, policy, &request, shard, &current, outcome, &decision.why, now_ms)?;
            Ok(true)
        }
        (DecisionKind::Overdue, Some(run), _) if is_live(batch.connection, run)? => {
            let unit = unit(batch)?;
            log(batch, &request, &unit, decision)
        }
        (kind @ (DecisionKind::Lost | DecisionKind::Late), Some(run), Some(worker))
            if is_live(batch.connection, run)? =>
        {
            let unit = unit(batch)?;
            log(batch, &request, &unit, decision)?;
            let outcome = if kind == DecisionKind::Late { Outcome::Timeout } else { Outcome::WorkerLost };
            let mut event =
                RunEvent::declared(run, shard, decision.attempt, worker, outcome, decision.at_ms, &decision.why);
            if let EventKind::Completed(completed) = &mut event.kind {
                completed.usage.clone_from(&decision.usage);
                let completed = completed.clone();
                apply::ended(batch, policy, &request, state, &event, &completed, now_ms)?;
            }
            Ok(true)
        }
        // Deaths, replays and purges are logged where they happen.
        _ => Ok(false),
    }
}

fn is_live(connection: &Connection, run: RunId) -> Result<bool, Error> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM runs WHERE run_id = ?1)")
        .and_then(|mut statement| statement.query_row([run.0], |row| row.get(0)))
        .map_err(during("looking for a run"))
}

/// Logs a decision; `false` if it was made before.
pub(super) fn log(batch: &mut Batch<'_>, request: &RequestRow, unit: &str, decision: &Decision) -> Result<bool, Error> {
    let shard = decision.shard;
    let run: &[u8] = decision.run.as_ref().map_or(&[], |run| run.0.as_bytes());
    batch
        .connection
        .prepare_cached(
            "INSERT OR IGNORE INTO decisions
                 (at_ms, kind, tenant, type, unit, request, stage, shard, attempt, run, worker, why, evidence)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                signed(decision.at_ms),
                decision.kind.as_str(),
                request.tenant,
                request.request_type,
                unit,
                shard.request.0,
                shard.stage,
                shard.index,
                decision.attempt,
                run,
                decision.worker.map(|worker| worker.0),
                decision.why,
                decision.evidence
            ])
        })
        .map(|inserted| inserted > 0)
        .map_err(during("logging a decision"))
}

const DECISION: &str =
    "SELECT seq, type, unit, tenant, kind, request, stage, shard, attempt, run, worker, why, evidence,
     at_ms FROM decisions";

fn read(row: &Row<'_>) -> rusqlite::Result<(RecordedDecision, String)> {
    let run: Vec<u8> = row.get(9)?;
    let decision = Decision {
        kind: DecisionKind::Dead,
        shard: shard_id(row.get(5)?, row.get(6)?, row.get(7)?),
        attempt: row.get(8)?,
        run: Uuid::from_slice(&run).ok().map(RunId),
        worker: row.get::<_, Option<Uuid>>(10)?.map(WorkerId),
        why: row.get(11)?,
        evidence: row.get(12)?,
        usage: None,
        at_ms: unsigned(row.get(13)?),
    };
    let recorded = RecordedDecision {
        seq: row.get(0)?,
        request_type: row.get(1)?,
        unit: row.get(2)?,
        tenant: row.get(3)?,
        decision,
    };
    Ok((recorded, row.get(4)?))
}

fn named((mut recorded, kind): (RecordedDecision, String)) -> Result<RecordedDecision, Error> {
    recorded.decision.kind =
        DecisionKind::named(&kind).ok_or_else(|| Error::Corrupt(format!("a decision of the kind `{kind}`")))?;
    Ok(recorded)
}

/// What was decided of one shard, in order.
pub(super) fn of(connection: &Connection, shard: ShardId) -> Result<Vec<Decision>, Error> {
    let stored = rows(
        connection,
        "reading a shard's decisions",
        &format!("{DECISION} WHERE request = ?1 AND stage = ?2 AND shard = ?3 ORDER BY seq"),
        params![shard.request.0, shard.stage, shard.index],
        read,
    )?;
    stored.into_iter().map(|stored| named(stored).map(|recorded| recorded.decision)).collect()
}

/// Decisions after `seq`, in order.
pub(super) fn after(connection: &Connection, seq: i64, limit: u32) -> Result<Vec<RecordedDecision>, Error> {
    let sql = format!("{DECISION} WHERE seq > ?1 ORDER BY seq LIMIT ?2");
    rows(connection, "reading decisions", &sql, params![seq, limit], read)?.into_iter().map(named).collect()
}

/// Logs what was foreseen for the stages of a request that is being planned.
pub(super) fn log_stages(
    batch: &Batch<'_>,
    request: &RequestRow,
    stages: &[StageForecast],
    now_ms: u64,
) -> Result<(), Error> {
    let shards = stages.iter().fold(0u32, |sum, stage| sum.saturating_add(stage.shards));
    let mut statement = batch
        .connection
        .prepare_cached(
            "INSERT INTO stage_forecasts (at_ms, request, type, tenant, priority, stages, shards, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .map_err(during("logging a plan"))?;
    for stage in stages {
        statement
            .execute(params![
                signed(now_ms),
                request.id.0,
                request.request_type,
                request.tenant,
                request.priority,
                u32::try_from(stages.len()).unwrap_or(u32::MAX),
                shards,
                stage.encode_to_vec()
            ])
            .map_err(during("logging a plan"))?;
    }
    Ok(())
}

/// Planned stages after `seq`, in order.
pub(super) fn stages_after(connection: &Connection, seq: i64, limit: u32) -> Result<Vec<RecordedStage>, Error> {
    let stored: Vec<(RecordedStage, Vec<u8>)> = rows(
        connection,
        "reading plans",
        "SELECT seq, request, type, tenant, priority, stages, shards, at_ms, body FROM stage_forecasts
         WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        params![seq, limit],
        |row| {
            let recorded = RecordedStage {
                seq: row.get(0)?,
                request: RequestId(row.get(1)?),
                request_type: row.get(2)?,
                tenant: row.get(3)?,
                priority: row.get(4)?,
                stages: row.get(5)?,
                shards: row.get(6)?,
                at_ms: unsigned(row.get(7)?),
                forecast: StageForecast::default(),
            };
            Ok((recorded, row.get(8)?))
        },
    )?;
    stored
        .into_iter()
        .map(|(mut recorded, body)| {
            recorded.forecast = chunk::decode(&body, "a planned stage")?;
            Ok(recorded)
        })
        .collect()
}
