//! How stages fire and how requests end.

use std::collections::HashSet;

use forecastle_protos::ids::{RequestId, RunId};
use forecastle_protos::v1::{self, RequestState};
use rusqlite::{Connection, params};

use super::batch::{Batch, RequestRow, shard_id};
use super::{during, signed};
use crate::ledger::{Changes, Error, ReadyRange, ShardEvent};

struct StageRow {
    stage: u32,
    depends_on: Vec<u32>,
    shards: u32,
    complete: bool,
    fired: bool,
}

/// Fires every stage whose dependencies have succeeded, and ends the request once all its stages have. A stage fires
/// once: `fired` is written in the transaction that makes its shards ready.
pub(super) fn fire_stages(batch: &mut Batch<'_>, request: &RequestRow, now_ms: u64) -> Result<(), Error> {
    let mut stages = stages(batch.connection, request.seq)?;
    let mut complete: HashSet<u32> = stages.iter().filter(|s| s.fired && s.complete).map(|s| s.stage).collect();
    // A stage without shards is complete as soon as it fires, so that one pass may enable another.
    loop {
        let next = stages.iter_mut().find(|s| !s.fired && s.depends_on.iter().all(|d| complete.contains(d)));
        let Some(stage) = next else { break };
        stage.fired = true;
        batch
            .connection
            .prepare_cached("UPDATE stages SET fired = 1 WHERE request = ?1 AND stage = ?2 AND fired = 0")
            .and_then(|mut statement| statement.execute(params![request.seq, stage.stage]))
            .map_err(during("firing a stage"))?;
        if stage.shards == 0 {
            complete.insert(stage.stage);
        } else {
            let (number, count) = (stage.stage, stage.shards);
            batch.transition_all(request.seq, Some(number), ShardEvent::Fire)?;
            batch.changes.ready.push(ReadyRange { request: request.id, stage: number, first: 0, count });
        }
    }
    if complete.len() == stages.len() {
        end_request(batch, request, RequestState::Succeeded, None, now_ms)?;
    }
    Ok(())
}

fn stages(connection: &Connection, seq: i64) -> Result<Vec<StageRow>, Error> {
    let rows: Vec<(u32, String, u32, u32, bool)> = connection
        .prepare_cached(
            "SELECT stage, depends_on, shards, succeeded, fired FROM stages WHERE request = ?1 ORDER BY stage",
        )
        .and_then(|mut statement| {
            statement.query_map([seq], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))?.collect()
        })
        .map_err(during("reading stages"))?;
    rows.into_iter()
        .map(|(stage, depends_on, shards, succeeded, fired)| {
            let depends_on = serde_json::from_str(&depends_on)
                .map_err(|error| Error::Corrupt(format!("dependencies of stage {stage}: {error}")))?;
            Ok(StageRow { stage, depends_on, shards, complete: succeeded >= shards, fired })
        })
        .collect()
}

/// Ends a request. Unless it succeeded, what has not ended of it is cancelled and its runs are unwanted.
pub(super) fn end_request(
    batch: &mut Batch<'_>,
    request: &RequestRow,
    state: RequestState,
    error: Option<&v1::ErrorDetail>,
    now_ms: u64,
) -> Result<(), Error> {
    batch
        .connection
        .prepare_cached(
            "UPDATE requests SET state = ?2, finished_ms = ?3, error = ?4,
                    reply_state = CASE WHEN reply_queue IS NULL THEN 0 ELSE 1 END
             WHERE seq = ?1",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                request.seq,
                state as i32,
                signed(now_ms),
                error.map(prost::Message::encode_to_vec)
            ])
        })
        .map_err(during("ending a request"))?;
    batch.forget(request.id);
    batch.touch(request.id);
    batch.changes.finished.push(request.id);
    if state != RequestState::Succeeded {
        batch.transition_all(request.seq, None, ShardEvent::Cancel)?;
        drop_attempts(batch, request, state)?;
        mark_unwanted(batch, request.seq, None)?;
    }
    Ok(())
}

/// Forgets what was ordered of a request that has ended. Of one that failed, and so may be reopened, the numbers of
/// attempts are kept: none may be minted twice.
fn drop_attempts(batch: &mut Batch<'_>, request: &RequestRow, state: RequestState) -> Result<(), Error> {
    let unclaimed: Vec<(u32, u32, u32)> = batch
        .connection
        .prepare_cached("SELECT stage, shard, attempt FROM attempts WHERE request = ?1 AND claimed = 0")
        .and_then(|mut statement| {
            statement.query_map([request.seq], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?.collect()
        })
        .map_err(during("listing attempts"))?;
    for (stage, shard, attempt) in unclaimed {
        batch.changes.left_queue.push((shard_id(request.id.0, stage, shard), attempt));
    }
    let statements: &[&str] = if state == RequestState::Failed {
        &[
            "INSERT INTO exceptions
                 (request, stage, shard, attempts, errors, out_of_memory, timeouts, lost, uncounted, returned, last)
             SELECT request, stage, shard, attempt, 0, 0, 0, 0, 0, 0, body FROM attempts WHERE request = ?1
             ON CONFLICT DO UPDATE SET attempts = excluded.attempts",
            "UPDATE exceptions SET not_before_ms = NULL WHERE request = ?1",
            "DELETE FROM attempts WHERE request = ?1",
        ]
    } else {
        &["DELETE FROM attempts WHERE request = ?1", "DELETE FROM exceptions WHERE request = ?1"]
    };
    for sql in statements {
        batch
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([request.seq]))
            .map_err(during("forgetting attempts"))?;
    }
    Ok(())
}

/// Marks the runs of a request, or of one of its shards, as unwanted. They are told until they have ended.
pub(super) fn mark_unwanted(batch: &mut Batch<'_>, seq: i64, shard: Option<(u32, u32)>) -> Result<(), Error> {
    let (stage, index) = shard.unzip();
    let runs: Vec<uuid::Uuid> = batch
        .connection
        .prepare_cached(
            "UPDATE runs SET unwanted = 1
             WHERE request = ?1 AND (?2 IS NULL OR (stage = ?2 AND shard = ?3)) RETURNING run_id",
        )
        .and_then(|mut statement| statement.query_map(params![seq, stage, index], |row| row.get(0))?.collect())
        .map_err(during("marking runs as unwanted"))?;
    batch.changes.unwanted.extend(runs.into_iter().map(RunId));
    Ok(())
}

/// Cancels a request on somebody's demand.
pub(super) fn cancel(connection: &Connection, request: RequestId, now_ms: u64) -> Result<Changes, Error> {
    end_early(connection, request, RequestState::Cancelled, None, now_ms)
}

/// Fails a request that cannot be planned.
pub(super) fn fail(
    connection: &Connection,
    request: RequestId,
    error: &v1::ErrorDetail,
    now_ms: u64,
) -> Result<Changes, Error> {
    end_early(connection, request, RequestState::Failed, Some(error), now_ms)
}

fn end_early(
    connection: &Connection,
    request: RequestId,
    state: RequestState,
    error: Option<&v1::ErrorDetail>,
    now_ms: u64,
) -> Result<Changes, Error> {
    let mut batch = Batch::new(connection);
    let Some(row) = batch.request(request)? else { return Err(Error::UnknownRequest(request)) };
    if matches!(row.state, RequestState::Admitted | RequestState::Running) {
        end_request(&mut batch, &row, state, error, now_ms)?;
    }
    batch.finish()
}
