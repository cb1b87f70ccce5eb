//! What a run is given.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forecastle_catalogue::{ParameterValue, Unit};
use forecastle_protos::ids::{RunId, ShardId};
use forecastle_protos::v1;
use forecastle_resources::ResourceVector;

use crate::adjustment::Allocation;
use crate::execution::UsageNow;
use crate::stop::StopSignal;

/// One run.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// Its id.
    pub run: RunId,
    /// The shard.
    pub shard: ShardId,
    /// From 1.
    pub attempt: u32,
    /// The request's type.
    pub request_type: String,
    /// Whose request it is.
    pub tenant: String,
    /// What runs.
    pub unit: Arc<Unit>,
    /// What it reads.
    pub items: Vec<v1::Item>,
    /// The request's parameters, checked.
    pub parameters: BTreeMap<String, ParameterValue>,
    /// What the stages before produced.
    pub upstream: Vec<v1::ShardResult>,
    /// Where an earlier attempt came to.
    pub checkpoint: Option<v1::Checkpoint>,
    /// What it may use at first.
    pub reservation: ResourceVector,
    /// How long it is expected to take.
    pub expected: Duration,
    /// When its request is to have ended, milliseconds since 1970.
    pub deadline_unix_ms: Option<u64>,
    /// How long it may take.
    pub limit: Option<Duration>,
    /// The request's W3C trace context.
    pub traceparent: Option<String>,
    /// Tells it to end early.
    pub stop: StopSignal,
    /// Where it says what it uses now.
    pub usage: UsageNow,
    /// What it may use, as that changes.
    pub allocation: Allocation,
}
