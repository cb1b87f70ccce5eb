//! What ended runs left: results, the events behind them, and watermarks of their readers.

use forecastle_protos::ids::{RequestId, RunId, ShardId};
use forecastle_protos::v1;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::batch::shard_id;
use super::queries::{in_flight, live_runs_of, rows};
use super::{apply, during, unsigned};
use crate::ledger::{Error, EventKind, Outgrown, RecordedEvent, ShardHistory};

type StoredEvent = (i64, bool, Vec<u8>);

fn decode(stored: Vec<StoredEvent>) -> Result<Vec<RecordedEvent>, Error> {
    stored.into_iter().map(|(seq, winning, body)| apply::decode_event(seq, winning, &body)).collect()
}

/// The winning runs of some stages, by stage and shard.
pub(super) fn results(
    connection: &Connection,
    request: RequestId,
    stages: &[u32],
) -> Result<Vec<v1::ShardResult>, Error> {
    let mut results = Vec::new();
    for stage in stages {
        let stored = rows(
            connection,
            "reading results",
            "SELECT e.seq, e.winning, e.body FROM requests r JOIN events e ON e.request = r.seq
             WHERE r.id = ?1 AND e.stage = ?2 AND e.winning = 1 ORDER BY e.shard",
            params![request.0, stage],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        results.extend(decode(stored)?.into_iter().filter_map(result));
    }
    Ok(results)
}

/// A page of a request's winning runs.
pub(super) fn manifest(
    connection: &Connection,
    request: RequestId,
    after: Option<(u32, u32)>,
    limit: u32,
) -> Result<Vec<v1::ShardResult>, Error> {
    let (stage, shard) = after.map_or((-1, -1), |(stage, shard)| (i64::from(stage), i64::from(shard)));
    let stored = rows(
        connection,
        "reading results",
        "SELECT e.seq, e.winning, e.body FROM requests r JOIN events e ON e.request = r.seq
         WHERE r.id = ?1 AND e.winning = 1 AND (e.stage > ?2 OR (e.stage = ?2 AND e.shard > ?3))
         ORDER BY e.stage, e.shard LIMIT ?4",
        params![request.0, stage, shard, limit],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    Ok(decode(stored)?.into_iter().filter_map(result).collect())
}

/// Of shards with events after `seq`, those that have succeeded and had runs that did not win.
pub(super) fn outgrown_after(connection: &Connection, seq: i64, limit: u32) -> Result<Outgrown, Error> {
    let last = connection
        .prepare_cached("SELECT max(seq) FROM (SELECT seq FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2)")
        .and_then(|mut statement| statement.query_row(params![seq, limit], |row| row.get(0)))
        .map_err(during("looking for new events"))?;
    let shards = rows(
        connection,
        "listing shards with several runs",
        "SELECT r.id, n.stage, n.shard, w.run_id
         FROM (SELECT DISTINCT request, stage, shard FROM events WHERE seq > ?1 AND seq <= ?2) n
         JOIN events w ON w.request = n.request AND w.stage = n.stage AND w.shard = n.shard AND w.winning = 1
         JOIN requests r ON r.seq = n.request
         WHERE EXISTS (SELECT 1 FROM events o WHERE o.request = n.request AND o.stage = n.stage AND o.shard = n.shard
                       AND o.winning = 0)
         ORDER BY w.seq",
        params![seq, last],
        |row| Ok((shard_id(row.get(0)?, row.get(1)?, row.get(2)?), RunId(row.get(3)?))),
    )?;
    Ok(Outgrown { last, shards })
}

fn result(recorded: RecordedEvent) -> Option<v1::ShardResult> {
    let event = recorded.event;
    match event.kind {
        EventKind::Claimed => None,
        EventKind::Completed(completed) => Some(v1::ShardResult {
            shard_id: event.shard.to_string(),
            stage: completed.stage,
            unit: completed.unit,
            run_id: event.run.to_string(),
            attempt: event.attempt,
            output_uri: completed.output_uri,
            files: completed.files,
            inline_json: completed.inline_json,
        }),
    }
}

/// The runs of one shard.
pub(super) fn shard_history(connection: &Connection, shard: ShardId) -> Result<ShardHistory, Error> {
    let stored = rows(
        connection,
        "reading a shard's events",
        "SELECT e.seq, e.winning, e.body FROM requests r JOIN events e ON e.request = r.seq
         WHERE r.id = ?1 AND e.stage = ?2 AND e.shard = ?3 ORDER BY e.seq",
        params![shard.request.0, shard.stage, shard.index],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let not_before: Option<Option<i64>> = connection
        .prepare_cached(
            "SELECT x.not_before_ms FROM requests r JOIN exceptions x ON x.request = r.seq
             WHERE r.id = ?1 AND x.stage = ?2 AND x.shard = ?3",
        )
        .and_then(|mut s| s.query_row(params![shard.request.0, shard.stage, shard.index], |row| row.get(0)).optional())
        .map_err(during("reading when a shard resumes"))?;
    Ok(ShardHistory {
        in_flight: in_flight(connection, Some(shard))?.into_iter().next(),
        live: live_runs_of(connection, shard)?,
        ended: decode(stored)?,
        not_before_ms: not_before.flatten().map(unsigned),
    })
}

/// Completion events after `seq`, in order.
pub(super) fn events_after(connection: &Connection, seq: i64, limit: u32) -> Result<Vec<RecordedEvent>, Error> {
    let stored = rows(
        connection,
        "reading events",
        "SELECT seq, winning, body FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        params![seq, limit],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    decode(stored)
}

/// How far a reader of events has come.
pub(super) fn watermark(connection: &Connection, reader: &str) -> Result<i64, Error> {
    connection
        .prepare_cached("SELECT seq FROM watermarks WHERE reader = ?1")
        .and_then(|mut statement| statement.query_row([reader], |row| row.get(0)).optional())
        .map(|seq| seq.unwrap_or(0))
        .map_err(during("reading a watermark"))
}
