//! In the place of commands: runs that take their time and end as the seed has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use forecastle_protos::ids::{RunId, ShardId};
use forecastle_protos::v1::{self, Outcome};
use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis};
use forecastle_worker::{Ending, Execution, Executor};
use rand::RngExt as _;

use crate::link::Link;
use crate::weather::{Fault, Weather};

/// The units.
pub const UNITS: [&str; 3] = ["gather", "heavy", "work"];

/// What was done by anybody.
#[derive(Debug, Default)]
pub struct Record {
    succeeded: Mutex<BTreeMap<RunId, ShardId>>,
}

impl Record {
    /// The shard that a run did to the end, if it did.
    pub fn done_by(&self, run: RunId) -> Option<ShardId> {
        self.succeeded.lock().unwrap_or_else(PoisonError::into_inner).get(&run).copied()
    }
}

/// One worker's executor.
pub struct Labour {
    weather: Arc<Weather>,
    link: Link,
    record: Arc<Record>,
    running: Mutex<BTreeSet<RunId>>,
}

impl Labour {
    /// An executor that stands still when `link` does.
    pub fn new(weather: Arc<Weather>, link: Link, record: Arc<Record>) -> Self {
        Self { weather, link, record, running: Mutex::default() }
    }

    /// Runs that have not ended.
    pub fn running(&self) -> usize {
        self.running_set().len()
    }

    fn running_set(&self) -> std::sync::MutexGuard<'_, BTreeSet<RunId>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a run takes, and how it ends if it is let.
    fn draw(&self, unit: &str) -> (Duration, Outcome) {
        let takes = if unit == "gather" {
            // Now and then longer than a tiny shard may.
            let long = self.weather.random().random_bool(0.05);
            self.weather.between(Duration::from_millis(1), Duration::from_millis(if long { 4000 } else { 60 }))
        } else if self.weather.random().random_bool(0.1) {
            self.weather.between(Duration::from_secs(10), Duration::from_secs(40))
        } else {
            self.weather.between(Duration::from_millis(20), Duration::from_secs(5))
        };
        if !self.weather.strikes(0.05, Fault::RunFailed) {
            return (takes, Outcome::Succeeded);
        }
        let outcomes = [Outcome::TaskError, Outcome::OutOfMemory, Outcome::Timeout];
        let which = self.weather.random().random_range(0..outcomes.len());
        (takes, outcomes[which])
    }
}

#[async_trait]
impl Executor for Labour {
    fn units(&self) -> Vec<String> {
        UNITS.map(str::to_owned).to_vec()
    }

    fn refuses(&self, unit: &str) -> Option<String> {
        (!UNITS.contains(&unit)).then(|| format!("there is no unit `{unit}`"))
    }

    fn enforcement(&self) -> &'static str {
        "none"
    }

    async fn execute(&self, execution: Execution) -> Ending {
        let headers = &execution.assignment.headers;
        let vector = &headers.reservation.vector;
        self.running_set().insert(execution.run);
        let (takes, outcome) = self.draw(&execution.assignment.shard.unit);
        execution.usage.set_memory(Bytes(vector.memory.0 / 2));
        execution.usage.set_rates(CpuMillis(vector.cpu.0 / 2), BytesPerSecond(0));
        let limit = execution.limit.unwrap_or(Duration::MAX);
        let ending = tokio::select! {
            () = tokio::time::sleep(takes.min(limit)) => {
                self.link.pass().await;
                let outcome = if takes > limit { Outcome::Timeout } else { outcome };
                let took = u64::try_from(takes.as_millis()).unwrap_or(u64::MAX);
                let usage = v1::Usage {
                    cpu_ms: took / 2, duration_ms: took, memory_bytes: vector.memory.0 / 2,
                    source: "in-process".to_owned(), ..Default::default()
                };
                Ending { usage: Some(usage), inline_json: "1".to_owned(), ..Ending::failed(outcome, "") }
            }
            () = execution.stop.token().cancelled() => {
                match execution.stop.reason() {
                    Some(reason) => Ending::failed(reason.outcome(), reason.explanation()),
                    None => Ending::failed(Outcome::Cancelled, "without a reason"),
                }
            }
        };
        if ending.outcome == Outcome::Succeeded {
            self.record.succeeded.lock().unwrap_or_else(PoisonError::into_inner).insert(execution.run, headers.shard);
        }
        self.running_set().remove(&execution.run);
        ending
    }
}
