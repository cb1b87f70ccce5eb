//! What readers ask: unfinished work, heads, specifications, status and lists.

use forecastle_protos::ids::{RequestId, ShardId};
use forecastle_protos::v1::{self, RequestState};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use uuid::Uuid;

use super::batch::{request_state, shard_id};
use super::chunk::{self, AttemptBody, ChunkBody};
use super::{apply, attempts, during, unsigned};
use crate::ledger::{
    BackingOff, Counters, Error, InFlight, Listing, LiveRun, OpenWork, ReadyRange, Release, RequestHead, ShardSpec,
    ShardState,
};

/// Collects the rows of a cached statement.
pub(super) fn rows<T>(
    connection: &Connection,
    context: &'static str,
    sql: &str,
    parameters: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Error> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_map(parameters, read)?.collect())
        .map_err(during(context))
}

/// Requests that were admitted and not planned, the oldest first.
pub(super) fn unplanned(connection: &Connection, limit: u32) -> Result<Vec<RequestId>, Error> {
    rows(
        connection,
        "listing requests to plan",
        "SELECT id FROM requests WHERE state = 1 ORDER BY seq LIMIT ?1",
        [limit],
        |row| row.get(0).map(RequestId),
    )
}

/// Everything unfinished that was planned.
pub(super) fn open_work(connection: &Connection) -> Result<OpenWork, Error> {
    let mut work = OpenWork::default();
    let chunks: Vec<(Uuid, u32, u32, Vec<u8>)> = rows(
        connection,
        "listing open chunks",
        "SELECT r.id, c.stage, c.chunk, c.states FROM chunks c JOIN requests r ON r.seq = c.request
         WHERE r.state = ?1 ORDER BY c.request, c.stage, c.chunk",
        [RequestState::Running as i32],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )?;
    for (request, stage, number, states) in chunks {
        for (first, count) in chunk::ranges(&states, ShardState::Ready) {
            let first = number * chunk::SHARDS + first;
            work.ready.push(ReadyRange { request: RequestId(request), stage, first, count });
        }
    }
    work.backing_off = rows(
        connection,
        "listing shards that back off",
        "SELECT r.id, e.stage, e.shard, e.not_before_ms FROM exceptions e JOIN requests r ON r.seq = e.request
         WHERE e.not_before_ms IS NOT NULL",
        [],
        |row| {
            let shard = shard_id(row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(BackingOff { shard, not_before_ms: unsigned(row.get(3)?) })
        },
    )?;
    work.in_flight = in_flight(connection, None)?;
    work.runs = live_runs(connection)?;
    work.replies_owed = rows(
        connection,
        "listing replies that are owed",
        "SELECT id FROM requests WHERE reply_state = 1",
        [],
        |row| row.get(0).map(RequestId),
    )?;
    Ok(work)
}

/// Attempts in flight: all, or one shard's.
pub(super) fn in_flight(connection: &Connection, shard: Option<ShardId>) -> Result<Vec<InFlight>, Error> {
    type Stored = (Uuid, u32, u32, u32, bool, bool, Vec<u8>);
    let stored: Vec<Stored> = rows(
        connection,
        "listing attempts in flight",
        "SELECT r.id, a.stage, a.shard, a.attempt, a.confirmed, a.claimed, a.body
         FROM attempts a JOIN requests r ON r.seq = a.request
         WHERE ?1 IS NULL OR (r.id = ?1 AND a.stage = ?2 AND a.shard = ?3)",
        params![shard.map(|s| s.request.0), shard.map(|s| s.stage), shard.map(|s| s.index)],
        |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?)),
    )?;
    stored
        .into_iter()
        .map(|(request, stage, index, attempt, confirmed, claimed, body)| {
            let body: AttemptBody = chunk::decode(&body, "an attempt")?;
            let class = body.class.parse().map_err(|error| Error::Corrupt(format!("an attempt: {error}")))?;
            let release = Release {
                shard: shard_id(request, stage, index),
                attempt,
                reservation: body.reservation.as_ref().map(Into::into).unwrap_or_default(),
                forecast: body.forecast.unwrap_or_default(),
                class,
                queue: body.queue,
                timeout_ms: body.timeout_ms,
                now_ms: body.released_ms,
            };
            Ok(InFlight { release, confirmed, claimed })
        })
        .collect()
}

const LIVE_RUN: &str = "SELECT u.run_id, r.id, u.stage, u.shard, u.attempt, u.worker, u.claimed_ms, u.unwanted
     FROM runs u JOIN requests r ON r.seq = u.request";

/// Every live run.
pub(super) fn live_runs(connection: &Connection) -> Result<Vec<LiveRun>, Error> {
    rows(connection, "listing live runs", LIVE_RUN, [], apply::live_run)
}

/// The live runs of one shard.
pub(super) fn live_runs_of(connection: &Connection, shard: ShardId) -> Result<Vec<LiveRun>, Error> {
    rows(
        connection,
        "listing live runs",
        &format!("{LIVE_RUN} WHERE r.id = ?1 AND u.stage = ?2 AND u.shard = ?3"),
        params![shard.request.0, shard.stage, shard.index],
        apply::live_run,
    )
}

/// What a request's shards share.
pub(super) fn head(connection: &Connection, request: RequestId) -> Result<Option<RequestHead>, Error> {
    let found: Option<(RequestHead, Vec<u8>)> = connection
        .prepare_cached(
            "SELECT seq, tenant, request_type, fleet, priority, deadline_ms, created_ms, body
             FROM requests WHERE id = ?1",
        )
        .and_then(|mut statement| {
            statement
                .query_row([request.0], |row| {
                    let head = RequestHead {
                        id: request,
                        seq: row.get(0)?,
                        tenant: row.get(1)?,
                        request_type: row.get(2)?,
                        fleet: row.get(3)?,
                        priority: parsed(row, 4)?,
                        deadline_ms: row.get::<_, Option<i64>>(5)?.map(unsigned),
                        created_ms: unsigned(row.get(6)?),
                        body: v1::SubmitRequest::default(),
                    };
                    Ok((head, row.get(7)?))
                })
                .optional()
        })
        .map_err(during("reading a request"))?;
    found
        .map(|(mut head, body)| {
            head.body = chunk::decode(&body, "a request's body")?;
            Ok(head)
        })
        .transpose()
}

/// A text column parsed; what does not parse is a conversion failure of that column.
fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get::<_, String>(column)?
        .parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// Specifications of shards. Shards of the same chunk share its decoding when they stand together.
pub(super) fn specs(connection: &Connection, shards: &[ShardId]) -> Result<Vec<ShardSpec>, Error> {
    let mut specs = Vec::with_capacity(shards.len());
    let mut cached: Option<((RequestId, u32, u32), Option<LoadedChunk>)> = None;
    for &shard in shards {
        let (number, place) = chunk::locate(shard.index);
        let key = (shard.request, shard.stage, number);
        if cached.as_ref().is_none_or(|(known, _)| *known != key) {
            cached = Some((key, load_chunk(connection, shard, number)?));
        }
        let Some((_, Some(chunk))) = &cached else { continue };
        let (Some(body), Some(byte)) = (chunk.body.shards.get(place), chunk.states.get(place)) else { continue };
        let (ended, counters, last) = exception(connection, chunk.seq, shard)?;
        specs.push(ShardSpec {
            shard,
            state: chunk::state(*byte)?,
            stage_name: chunk.stage_name.clone(),
            unit: body.unit.clone(),
            items: body.items.clone(),
            next_attempt: ended + 1,
            counters,
            checkpoint: last.as_ref().and_then(|body| body.checkpoint.clone()),
            last_reservation: last.and_then(|body| body.reservation.as_ref().map(Into::into)),
            depends_on: chunk.depends_on.clone(),
        });
    }
    Ok(specs)
}

struct LoadedChunk {
    seq: i64,
    states: Vec<u8>,
    body: ChunkBody,
    stage_name: String,
    depends_on: Vec<u32>,
}

fn load_chunk(connection: &Connection, shard: ShardId, number: u32) -> Result<Option<LoadedChunk>, Error> {
    type Stored = (i64, Vec<u8>, Vec<u8>, String, String);
    let row: Option<Stored> = connection
        .prepare_cached(
            "SELECT c.request, c.states, c.body, s.name, s.depends_on
             FROM requests r JOIN chunks c ON c.request = r.seq
             JOIN stages s ON s.request = c.request AND s.stage = c.stage
             WHERE r.id = ?1 AND c.stage = ?2 AND c.chunk = ?3",
        )
        .and_then(|mut statement| {
            statement
                .query_row(params![shard.request.0, shard.stage, number], |r| {
                    Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?))
                })
                .optional()
        })
        .map_err(during("reading a chunk"))?;
    row.map(|(seq, states, body, stage_name, depends_on)| {
        Ok(LoadedChunk {
            seq,
            states,
            body: chunk::decode(&body, "a chunk")?,
            depends_on: serde_json::from_str(&depends_on)
                .map_err(|error| Error::Corrupt(format!("dependencies of stage {stage_name}: {error}")))?,
            stage_name,
        })
    })
    .transpose()
}

fn exception(connection: &Connection, seq: i64, shard: ShardId) -> Result<(u32, Counters, Option<AttemptBody>), Error> {
    let row: Option<(u32, Vec<u8>)> = connection
        .prepare_cached("SELECT attempts, last FROM exceptions WHERE request = ?1 AND stage = ?2 AND shard = ?3")
        .and_then(|mut s| {
            s.query_row(params![seq, shard.stage, shard.index], |r| Ok((r.get(0)?, r.get(1)?))).optional()
        })
        .map_err(during("reading what failed before"))?;
    match row {
        None => Ok((0, Counters::default(), None)),
        Some((attempts, last)) => {
            let counters = attempts::counters(connection, seq, shard)?;
            Ok((attempts, counters, Some(chunk::decode(&last, "an attempt")?)))
        }
    }
}

/// A request's status.
pub(super) fn status(connection: &Connection, request: RequestId) -> Result<Option<v1::RequestStatus>, Error> {
    let seq: Option<i64> = connection
        .prepare_cached("SELECT seq FROM requests WHERE id = ?1")
        .and_then(|mut statement| statement.query_row([request.0], |row| row.get(0)).optional())
        .map_err(during("reading a request"))?;
    seq.map(|seq| status_of(connection, seq)).transpose()
}

/// A page of requests, newest first.
pub(super) fn list(connection: &Connection, listing: &Listing) -> Result<(Vec<v1::RequestStatus>, Option<i64>), Error> {
    let seqs: Vec<i64> = rows(
        connection,
        "listing requests",
        "SELECT seq FROM requests WHERE tenant = ?1 AND (?2 IS NULL OR state = ?2) AND (?3 IS NULL OR seq < ?3)
         ORDER BY seq DESC LIMIT ?4",
        params![listing.tenant, listing.state.map(|s| s as i32), listing.before, i64::from(listing.limit) + 1],
        |row| row.get(0),
    )?;
    let limit = listing.limit as usize;
    let next = (seqs.len() > limit && limit > 0).then(|| seqs[limit - 1]);
    let page = seqs.into_iter().take(limit).map(|seq| status_of(connection, seq)).collect::<Result<_, _>>()?;
    Ok((page, next))
}

fn status_of(connection: &Connection, seq: i64) -> Result<v1::RequestStatus, Error> {
    let (mut status, error, body): (v1::RequestStatus, Option<Vec<u8>>, Vec<u8>) = connection
        .prepare_cached(
            "SELECT id, request_type, tenant, priority, state, created_ms, finished_ms, deadline_ms, oom_retries,
                    error, body FROM requests WHERE seq = ?1",
        )
        .and_then(|mut statement| {
            statement.query_row([seq], |row| {
                let time = |column| row.get::<_, Option<i64>>(column).map(|ms| ms.map_or(0, unsigned));
                let status = v1::RequestStatus {
                    request_id: RequestId(row.get(0)?).to_string(),
                    request_type: row.get(1)?,
                    tenant: row.get(2)?,
                    priority: row.get(3)?,
                    state: request_state(row.get(4)?).into(),
                    created_unix_ms: time(5)?,
                    finished_unix_ms: time(6)?,
                    deadline_unix_ms: time(7)?,
                    oom_retries: row.get(8)?,
                    ..Default::default()
                };
                Ok((status, row.get(9)?, row.get(10)?))
            })
        })
        .map_err(during("reading a request"))?;
    status.error = error.map(|bytes| chunk::decode(&bytes, "an error")).transpose()?;
    status.labels = chunk::decode::<v1::SubmitRequest>(&body, "a request's body")?.labels;

    let stages: Vec<(u32, String, u32)> = rows(
        connection,
        "reading stages",
        "SELECT stage, name, shards FROM stages WHERE request = ?1 ORDER BY stage",
        [seq],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    for (stage, name, shards) in stages {
        let chunks: Vec<Vec<u8>> = rows(
            connection,
            "reading shards' states",
            "SELECT states FROM chunks WHERE request = ?1 AND stage = ?2",
            params![seq, stage],
            |row| row.get(0),
        )?;
        let mut counted = v1::StageStatus { name, shards, ..Default::default() };
        for byte in chunks.into_iter().flatten() {
            let counter = match chunk::state(byte)? {
                ShardState::Waiting | ShardState::Ready | ShardState::Backoff => &mut counted.waiting,
                ShardState::InFlight => &mut counted.in_flight,
                ShardState::Succeeded => &mut counted.succeeded,
                ShardState::Failed => &mut counted.failed,
                ShardState::Cancelled => &mut counted.cancelled,
            };
            *counter += 1;
        }
        status.stages.push(counted);
    }
    Ok(status)
}
