//! Ordering attempts, and marking what the broker confirmed.

use forecastle_protos::ids::ShardId;
use forecastle_protos::v1::{self, RequestState};
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::batch::Batch;
use super::chunk::{self, AttemptBody};
use super::during;
use crate::ledger::{Changes, Error, ReadyRange, Release, ShardEvent};

/// Orders the attempts that may be ordered; the rest are left out of the answer.
pub(super) fn release(connection: &Connection, releases: Vec<Release>) -> Result<Vec<Release>, Error> {
    let mut batch = Batch::new(connection);
    let mut ordered = Vec::with_capacity(releases.len());
    for release in releases {
        let shard = release.shard;
        let Some(request) = batch.request(shard.request)? else { continue };
        if request.state != RequestState::Running
            || attempts_ended(connection, request.seq, shard)? + 1 != release.attempt
            || batch.state(request.seq, shard.stage, shard.index)?.is_none()
            || batch.transition(request.seq, shard.stage, shard.index, ShardEvent::Release)?.is_err()
        {
            continue;
        }
        let body = AttemptBody {
            reservation: Some((&release.reservation).into()),
            forecast: Some(release.forecast.clone()),
            class: release.class.to_string(),
            queue: release.queue.clone(),
            released_ms: release.now_ms,
            checkpoint: last_checkpoint(connection, request.seq, shard)?,
            timeout_ms: release.timeout_ms,
        };
        connection
            .prepare_cached("INSERT INTO attempts (request, stage, shard, attempt, body) VALUES (?1, ?2, ?3, ?4, ?5)")
            .and_then(|mut statement| {
                statement.execute(params![request.seq, shard.stage, shard.index, release.attempt, body.encode_to_vec()])
            })
            .map_err(during("ordering an attempt"))?;
        ordered.push(release);
    }
    batch.finish()?;
    Ok(ordered)
}

/// How many attempts of a shard have ended without success.
pub(super) fn attempts_ended(connection: &Connection, seq: i64, shard: ShardId) -> Result<u32, Error> {
    connection
        .prepare_cached("SELECT attempts FROM exceptions WHERE request = ?1 AND stage = ?2 AND shard = ?3")
        .and_then(|mut s| s.query_row(params![seq, shard.stage, shard.index], |row| row.get(0)).optional())
        .map(|ended| ended.unwrap_or(0))
        .map_err(during("counting attempts"))
}

/// Where the attempts of a shard that have ended came to.
fn last_checkpoint(connection: &Connection, seq: i64, shard: ShardId) -> Result<Option<v1::Checkpoint>, Error> {
    let last: Option<Vec<u8>> = connection
        .prepare_cached("SELECT last FROM exceptions WHERE request = ?1 AND stage = ?2 AND shard = ?3")
        .and_then(|mut s| s.query_row(params![seq, shard.stage, shard.index], |row| row.get(0)).optional())
        .map_err(during("reading a checkpoint"))?;
    let last: Option<AttemptBody> = last.map(|body| chunk::decode(&body, "an attempt")).transpose()?;
    Ok(last.and_then(|body| body.checkpoint))
}

/// Marks attempts whose message the broker has.
pub(super) fn confirm(connection: &Connection, attempts: &[(ShardId, u32)]) -> Result<(), Error> {
    let mut batch = Batch::new(connection);
    for (shard, attempt) in attempts {
        let Some(request) = batch.request(shard.request)? else { continue };
        connection
            .prepare_cached(
                "UPDATE attempts SET confirmed = 1
                 WHERE request = ?1 AND stage = ?2 AND shard = ?3 AND attempt = ?4",
            )
            .and_then(|mut s| s.execute(params![request.seq, shard.stage, shard.index, attempt]))
            .map_err(during("marking a confirmed attempt"))?;
    }
    Ok(())
}

/// Makes shards ready whose time to wait is over.
pub(super) fn resume(connection: &Connection, shards: &[ShardId]) -> Result<Changes, Error> {
    let mut batch = Batch::new(connection);
    for shard in shards {
        let Some(request) = batch.request(shard.request)? else { continue };
        if batch.state(request.seq, shard.stage, shard.index)?.is_none()
            || batch.transition(request.seq, shard.stage, shard.index, ShardEvent::Resume)?.is_err()
        {
            continue;
        }
        connection
            .prepare_cached(
                "UPDATE exceptions SET not_before_ms = NULL WHERE request = ?1 AND stage = ?2 AND shard = ?3",
            )
            .and_then(|mut s| s.execute(params![request.seq, shard.stage, shard.index]))
            .map_err(during("resuming a shard"))?;
        batch.changes.ready.push(ReadyRange {
            request: shard.request,
            stage: shard.stage,
            first: shard.index,
            count: 1,
        });
    }
    batch.finish()
}
