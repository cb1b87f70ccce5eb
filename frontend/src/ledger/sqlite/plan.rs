//! Recording a plan: once, and never again.

use forecastle_planning::{Plan, PlannedStage};
use forecastle_protos::ids::RequestId;
use forecastle_protos::v1::{self, RequestState};
use prost::Message as _;
use rusqlite::{Connection, params};

use super::batch::Batch;
use super::chunk::{self, ChunkBody, ShardBody};
use super::{decisions, during, ending};
use crate::ledger::{Changes, Error, ShardState, StageForecast};

/// Writes stages and chunks and fires what depends on nothing; logs what was foreseen.
pub(super) fn record(
    connection: &Connection,
    request: RequestId,
    plan: &Plan,
    foreseen: &[StageForecast],
    now_ms: u64,
) -> Result<Changes, Error> {
    let mut batch = Batch::new(connection);
    let Some(row) = batch.request(request)? else { return Err(Error::UnknownRequest(request)) };
    if row.state != RequestState::Admitted {
        return Ok(Changes::default());
    }
    for (number, stage) in (0u32..).zip(&plan.stages) {
        record_stage(connection, row.seq, number, stage)?;
    }
    connection
        .prepare_cached("UPDATE requests SET state = ?2 WHERE seq = ?1")
        .and_then(|mut statement| statement.execute(params![row.seq, RequestState::Running as i32]))
        .map_err(during("starting a request"))?;
    decisions::log_stages(&batch, &row, foreseen, now_ms)?;
    batch.forget(request);
    batch.touch(request);
    ending::fire_stages(&mut batch, &row, now_ms)?;
    batch.finish()
}

fn record_stage(connection: &Connection, seq: i64, number: u32, stage: &PlannedStage) -> Result<(), Error> {
    let depends_on = serde_json::to_string(&stage.depends_on).map_err(|e| Error::Corrupt(e.to_string()))?;
    let shards = u32::try_from(stage.shards.len())
        .map_err(|_| Error::Corrupt(format!("stage {} has too many shards", stage.name)))?;
    connection
        .prepare_cached("INSERT INTO stages (request, stage, name, depends_on, shards) VALUES (?1, ?2, ?3, ?4, ?5)")
        .and_then(|mut statement| statement.execute(params![seq, number, stage.name, depends_on, shards]))
        .map_err(during("recording a stage"))?;
    let mut insert = connection
        .prepare_cached("INSERT INTO chunks (request, stage, chunk, states, body) VALUES (?1, ?2, ?3, ?4, ?5)")
        .map_err(during("recording a chunk"))?;
    for (chunk_number, shards) in (0u32..).zip(stage.shards.chunks(chunk::SHARDS as usize)) {
        let states = vec![ShardState::Waiting as u8; shards.len()];
        let body = ChunkBody {
            shards: shards
                .iter()
                .map(|shard| ShardBody {
                    unit: shard.unit.clone(),
                    items: shard
                        .items
                        .iter()
                        .map(|item| v1::Item { path: item.path.clone(), name: item.name.clone(), bytes: item.bytes })
                        .collect(),
                })
                .collect(),
        };
        insert
            .execute(params![seq, number, chunk_number, states, body.encode_to_vec()])
            .map_err(during("recording a chunk"))?;
    }
    Ok(())
}
