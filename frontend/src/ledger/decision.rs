//! What was decided about shards that did not go their way: the log of decisions.

use forecastle_protos::ids::{RequestId, RunId, ShardId, WorkerId};
use forecastle_protos::v1;

/// What was decided. The names are stored, and are what history and people see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecisionKind {
    /// A run's worker is lost, or lives and knows nothing of the run: the run has ended.
    Lost,
    /// A run is past its time limit: its worker is told to stop it.
    Overdue,
    /// A run that was overdue did not end: it has timed out, whatever its worker does.
    Late,
    /// An attempt was released, is not claimed, and its message is nowhere: the next follows.
    Stuck,
    /// A shard took down more workers than its budget: it is dead.
    Poisoned,
    /// A shard failed for good for another reason.
    Dead,
    /// A dead shard was given fresh budgets.
    Replayed,
    /// A dead shard was forgotten.
    Purged,
}

impl DecisionKind {
    /// Every kind.
    pub const ALL: [Self; 8] =
        [Self::Lost, Self::Overdue, Self::Late, Self::Stuck, Self::Poisoned, Self::Dead, Self::Replayed, Self::Purged];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Overdue => "overdue",
            Self::Late => "late",
            Self::Stuck => "stuck",
            Self::Poisoned => "poisoned",
            Self::Dead => "dead",
            Self::Replayed => "replayed",
            Self::Purged => "purged",
        }
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl std::fmt::Display for DecisionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A decision about one attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What.
    pub kind: DecisionKind,
    /// The shard.
    pub shard: ShardId,
    /// The attempt, from 1; 0 if none was ever ordered.
    pub attempt: u32,
    /// The run, if it is about one.
    pub run: Option<RunId>,
    /// The worker, if one is concerned.
    pub worker: Option<WorkerId>,
    /// Why, in a sentence.
    pub why: String,
    /// What was seen, as JSON.
    pub evidence: String,
    /// What the run had used when it was last heard of; becomes part of the event of a run that was given up.
    pub usage: Option<v1::Usage>,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
}

impl From<&Decision> for v1::Decision {
    fn from(decision: &Decision) -> Self {
        Self {
            kind: decision.kind.to_string(),
            shard_id: decision.shard.to_string(),
            attempt: decision.attempt,
            run_id: decision.run.map(|run| run.to_string()).unwrap_or_default(),
            worker_id: decision.worker.map(|worker| worker.to_string()).unwrap_or_default(),
            why: decision.why.clone(),
            evidence_json: decision.evidence.clone(),
            at_unix_ms: decision.at_ms,
        }
    }
}

/// A decision in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedDecision {
    /// Its place in the log; never reused.
    pub seq: i64,
    /// The request's type.
    pub request_type: String,
    /// The shard's unit.
    pub unit: String,
    /// The tenant.
    pub tenant: String,
    /// The decision, without usage.
    pub decision: Decision,
}

/// What came of [`decide`](super::Ledger::decide).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decided {
    /// What it means for everyone else.
    pub changes: super::Changes,
    /// The decisions that changed something, in order. Others had been made before, or were overtaken.
    pub made: Vec<Decision>,
}

/// What was foreseen for a stage when its request was planned.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StageForecast {
    /// The stage's number.
    #[prost(uint32, tag = "1")]
    pub stage: u32,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// How it was broken up: `once` or `items`.
    #[prost(string, tag = "3")]
    pub policy: String,
    /// Its shards.
    #[prost(uint32, tag = "4")]
    pub shards: u32,
    /// Items over all shards.
    #[prost(uint64, tag = "5")]
    pub items: u64,
    /// Bytes of input over all shards.
    #[prost(uint64, tag = "6")]
    pub bytes: u64,
    /// The size classes of the shards that were sized, with how many had each.
    #[prost(btree_map = "string, uint32", tag = "7")]
    pub classes: std::collections::BTreeMap<String, u32>,
    /// What the largest of them would reserve of each resource, and the longest duration.
    #[prost(message, optional, tag = "8")]
    pub largest: Option<v1::Reservation>,
    /// The mean of their reserved memory, in bytes.
    #[prost(uint64, tag = "9")]
    pub mean_memory_bytes: u64,
    /// What forecast: source and version, of the first.
    #[prost(string, tag = "10")]
    pub forecast_source: String,
    /// See `forecast_source`.
    #[prost(string, tag = "11")]
    pub forecast_version: String,
}

/// A stage's forecast in the log of plans.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedStage {
    /// Its place in the log; never reused.
    pub seq: i64,
    /// The request.
    pub request: RequestId,
    /// Its type.
    pub request_type: String,
    /// Its tenant.
    pub tenant: String,
    /// Its priority.
    pub priority: String,
    /// How many stages its plan has.
    pub stages: u32,
    /// How many shards its plan has.
    pub shards: u32,
    /// When it was planned, milliseconds since 1970.
    pub at_ms: u64,
    /// The forecast.
    pub forecast: StageForecast,
}
