//! Run events as the ledger takes them: checked, with types instead of texts.

use forecastle_protos::ids::{RunId, ShardId, WorkerId};
use forecastle_protos::v1;
use prost::Message as _;

/// An event of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEvent {
    /// The run.
    pub run: RunId,
    /// The shard.
    pub shard: ShardId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The worker.
    pub worker: WorkerId,
    /// By the worker's clock, milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// The worker holds a lease and is about to run.
    Claimed,
    /// The run ended.
    Completed(Box<v1::Completed>),
}

/// Why bytes are not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEvent {
    /// They are no protobuf of the message.
    #[error("the body is not an event batch: {0}")]
    Body(String),
    /// A field is missing or makes no sense.
    #[error("field {field} of a run event is wrong: {reason}")]
    Field {
        /// The field.
        field: &'static str,
        /// Why.
        reason: String,
    },
}

impl RunEvent {
    /// Decodes the body of a message: the events that can be read, and why the others cannot.
    pub fn decode_batch(body: &[u8]) -> Result<(Vec<Self>, Vec<InvalidEvent>), InvalidEvent> {
        let batch = v1::EventBatch::decode(body).map_err(|error| InvalidEvent::Body(error.to_string()))?;
        let (mut events, mut invalid) = (Vec::with_capacity(batch.events.len()), Vec::new());
        for mut event in batch.events {
            if let Some(v1::run_event::Kind::Completed(completed)) = &mut event.kind {
                // Only the ledger declares, and it does not write to itself.
                completed.declared = false;
            }
            match Self::try_from(event) {
                Ok(event) => events.push(event),
                Err(error) => invalid.push(error),
            }
        }
        Ok((events, invalid))
    }

    /// The outcome, if the run has ended.
    pub fn outcome(&self) -> Option<v1::Outcome> {
        match &self.kind {
            EventKind::Claimed => None,
            EventKind::Completed(completed) => Some(completed.outcome()),
        }
    }

    /// The event of a run that ended by the ledger's word.
    pub fn declared(
        run: RunId,
        shard: ShardId,
        attempt: u32,
        worker: WorkerId,
        outcome: v1::Outcome,
        now_ms: u64,
        error: &str,
    ) -> Self {
        let completed = v1::Completed {
            outcome: outcome.into(),
            error: error.to_owned(),
            exit_code: -1,
            ended_unix_ms: now_ms,
            declared: true,
            ..Default::default()
        };
        Self { run, shard, attempt, worker, at_ms: now_ms, kind: EventKind::Completed(Box::new(completed)) }
    }
}

impl TryFrom<v1::RunEvent> for RunEvent {
    type Error = InvalidEvent;

    fn try_from(event: v1::RunEvent) -> Result<Self, Self::Error> {
        fn field<T: std::str::FromStr>(field: &'static str, text: &str) -> Result<T, InvalidEvent>
        where
            T::Err: std::fmt::Display,
        {
            text.parse().map_err(|error: T::Err| InvalidEvent::Field { field, reason: error.to_string() })
        }
        let missing = |field| InvalidEvent::Field { field, reason: "it is missing".to_owned() };
        let shard: ShardId = field("shard_id", &event.shard_id)?;
        if event.attempt == 0 {
            return Err(InvalidEvent::Field { field: "attempt", reason: "attempts count from 1".to_owned() });
        }
        let kind = match event.kind.ok_or_else(|| missing("kind"))? {
            v1::run_event::Kind::Claimed(_) => EventKind::Claimed,
            v1::run_event::Kind::Completed(completed) => match v1::Outcome::try_from(completed.outcome) {
                Ok(v1::Outcome::Unspecified) | Err(_) => {
                    let reason = format!("{} is no outcome", completed.outcome);
                    return Err(InvalidEvent::Field { field: "completed.outcome", reason });
                }
                Ok(_) => EventKind::Completed(Box::new(completed)),
            },
        };
        Ok(Self {
            run: field("run_id", &event.run_id)?,
            shard,
            attempt: event.attempt,
            worker: field("worker_id", &event.worker_id)?,
            at_ms: event.at_unix_ms,
            kind,
        })
    }
}

impl From<&RunEvent> for v1::RunEvent {
    fn from(event: &RunEvent) -> Self {
        Self {
            run_id: event.run.to_string(),
            request_id: event.shard.request.to_string(),
            shard_id: event.shard.to_string(),
            attempt: event.attempt,
            worker_id: event.worker.to_string(),
            at_unix_ms: event.at_ms,
            kind: Some(match &event.kind {
                EventKind::Claimed => v1::run_event::Kind::Claimed(v1::Claimed::default()),
                EventKind::Completed(completed) => v1::run_event::Kind::Completed((**completed).clone()),
            }),
        }
    }
}
