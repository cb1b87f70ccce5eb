//! What the changes of one transaction share: rows read once, shards' states written once, and what it all means for
//! the rest of the frontend.

use std::collections::HashMap;
use std::rc::Rc;

use forecastle_protos::ids::{RequestId, ShardId};
use forecastle_protos::v1::RequestState;
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::{chunk, during};
use crate::ledger::{Changes, Error, Refused, ShardEvent, ShardState};

/// The part of a request's row that changes need.
#[derive(Debug)]
pub(super) struct RequestRow {
    pub(super) seq: i64,
    pub(super) id: RequestId,
    pub(super) tenant: String,
    pub(super) request_type: String,
    pub(super) priority: String,
    pub(super) state: RequestState,
}

/// Which chunk: request, stage, chunk.
type ChunkKey = (i64, u32, u32);

struct ChunkStates {
    bytes: Vec<u8>,
    changed: bool,
}

/// The working set of one change.
pub(super) struct Batch<'c> {
    pub(super) connection: &'c Connection,
    pub(super) changes: Changes,
    requests: HashMap<RequestId, Option<Rc<RequestRow>>>,
    chunks: HashMap<ChunkKey, ChunkStates>,
}

impl<'c> Batch<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection, changes: Changes::default(), requests: HashMap::new(), chunks: HashMap::new() }
    }

    /// A request's row, as it is now.
    pub(super) fn request(&mut self, id: RequestId) -> Result<Option<Rc<RequestRow>>, Error> {
        if let Some(known) = self.requests.get(&id) {
            return Ok(known.clone());
        }
        let row = self
            .connection
            .prepare_cached("SELECT seq, tenant, request_type, priority, state FROM requests WHERE id = ?1")
            .and_then(|mut statement| {
                statement
                    .query_row([id.0], |row| {
                        Ok(RequestRow {
                            seq: row.get(0)?,
                            id,
                            tenant: row.get(1)?,
                            request_type: row.get(2)?,
                            priority: row.get(3)?,
                            state: request_state(row.get(4)?),
                        })
                    })
                    .optional()
            })
            .map_err(during("reading a request"))?
            .map(Rc::new);
        self.requests.insert(id, row.clone());
        Ok(row)
    }

    /// Forgets what was read of a request, because its row was changed.
    pub(super) fn forget(&mut self, id: RequestId) {
        self.requests.remove(&id);
    }

    /// Notes that a request's status changed.
    pub(super) fn touch(&mut self, id: RequestId) {
        if self.changes.touched.last() != Some(&id) && !self.changes.touched.contains(&id) {
            self.changes.touched.push(id);
        }
    }

    /// Where a shard is; `None` if there is no such shard.
    pub(super) fn state(&mut self, seq: i64, stage: u32, shard: u32) -> Result<Option<ShardState>, Error> {
        let (chunk, place) = chunk::locate(shard);
        match self.chunk(seq, stage, chunk)?.and_then(|states| states.bytes.get(place).copied()) {
            Some(byte) => chunk::state(byte).map(Some),
            None => Ok(None),
        }
    }

    /// Moves a shard by the transition function. The outer error is the ledger's, the inner one the function's.
    pub(super) fn transition(
        &mut self,
        seq: i64,
        stage: u32,
        shard: u32,
        event: ShardEvent,
    ) -> Result<Result<ShardState, Refused>, Error> {
        let Some(before) = self.state(seq, stage, shard)? else {
            return Err(Error::Corrupt(format!("request {seq} has no shard {stage}.{shard}")));
        };
        let after = match before.on(event) {
            Ok(after) => after,
            Err(refused) => return Ok(Err(refused)),
        };
        let (chunk, place) = chunk::locate(shard);
        if let Some(states) = self.chunk(seq, stage, chunk)? {
            states.bytes[place] = after as u8;
            states.changed = true;
        }
        Ok(Ok(after))
    }

    /// Moves every shard of a request (of one stage, if given) that the event can happen to.
    pub(super) fn transition_all(&mut self, seq: i64, stage: Option<u32>, event: ShardEvent) -> Result<(), Error> {
        let keys: Vec<(u32, u32)> = self
            .connection
            .prepare_cached("SELECT stage, chunk FROM chunks WHERE request = ?1 AND (?2 IS NULL OR stage = ?2)")
            .and_then(|mut statement| {
                statement.query_map(params![seq, stage], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .map_err(during("listing chunks"))?;
        for (stage, chunk) in keys {
            if let Some(states) = self.chunk(seq, stage, chunk)? {
                for byte in &mut states.bytes {
                    if let Ok(after) = chunk::state(*byte)?.on(event) {
                        *byte = after as u8;
                        states.changed = true;
                    }
                }
            }
        }
        Ok(())
    }

    /// The shards of a stage that are in a state, as maximal ranges within chunks.
    pub(super) fn ranges(&mut self, seq: i64, stage: u32, wanted: ShardState) -> Result<Vec<(u32, u32)>, Error> {
        let mut found = Vec::new();
        for number in 0.. {
            let Some(states) = self.chunk(seq, stage, number)? else { break };
            let first = number * chunk::SHARDS;
            found.extend(chunk::ranges(&states.bytes, wanted).into_iter().map(|(from, count)| (first + from, count)));
        }
        Ok(found)
    }

    fn chunk(&mut self, seq: i64, stage: u32, chunk: u32) -> Result<Option<&mut ChunkStates>, Error> {
        use std::collections::hash_map::Entry;
        match self.chunks.entry((seq, stage, chunk)) {
            Entry::Occupied(known) => Ok(Some(known.into_mut())),
            Entry::Vacant(vacant) => {
                let bytes: Option<Vec<u8>> = self
                    .connection
                    .prepare_cached("SELECT states FROM chunks WHERE request = ?1 AND stage = ?2 AND chunk = ?3")
                    .and_then(|mut s| s.query_row(params![seq, stage, chunk], |row| row.get(0)).optional())
                    .map_err(during("reading shards' states"))?;
                Ok(bytes.map(|bytes| vacant.insert(ChunkStates { bytes, changed: false })))
            }
        }
    }

    /// What one shard is.
    pub(super) fn shard_body(&self, seq: i64, stage: u32, shard: u32) -> Result<chunk::ShardBody, Error> {
        let (number, place) = chunk::locate(shard);
        let body: Vec<u8> = self
            .connection
            .prepare_cached("SELECT body FROM chunks WHERE request = ?1 AND stage = ?2 AND chunk = ?3")
            .and_then(|mut s| s.query_row(params![seq, stage, number], |row| row.get(0)))
            .map_err(during("reading a chunk"))?;
        let mut body: chunk::ChunkBody = chunk::decode(&body, "a chunk")?;
        if place < body.shards.len() {
            Ok(body.shards.swap_remove(place))
        } else {
            Err(Error::Corrupt(format!("chunk {number} of stage {stage} has no shard {place}")))
        }
    }

    /// Writes what changed and answers with what it means.
    pub(super) fn finish(self) -> Result<Changes, Error> {
        let mut statement = self
            .connection
            .prepare_cached("UPDATE chunks SET states = ?4 WHERE request = ?1 AND stage = ?2 AND chunk = ?3")
            .map_err(during("writing shards' states"))?;
        for ((seq, stage, chunk), states) in self.chunks.into_iter().filter(|(_, states)| states.changed) {
            statement.execute(params![seq, stage, chunk, states.bytes]).map_err(during("writing shards' states"))?;
        }
        Ok(self.changes)
    }
}

/// A stored request state.
pub(super) fn request_state(number: i32) -> RequestState {
    RequestState::try_from(number).unwrap_or(RequestState::Unspecified)
}

/// A shard's id from the columns of a row joined with its request.
pub(super) fn shard_id(request: Uuid, stage: u32, index: u32) -> ShardId {
    ShardId { request: RequestId(request), stage, index }
}
