//! An executor that does what the unit's name says, and watches what runs at a time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use forecastle_protos::ids::{RunId, ShardId};
use forecastle_protos::v1::{self, Outcome};
use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, ResourceVector};
use forecastle_worker::execution::Expected;
use forecastle_worker::{Ending, Execution, Executor};
use tokio::time::Instant;

/// Units: `moment` succeeds after 10 ms, `second`, `minute` and `hour` after that long, `fail` fails at once, `panic` panics.
#[derive(Debug, Default)]
pub(crate) struct Scripted {
    seen: Mutex<Seen>,
    sweeps: AtomicUsize,
    discarded: Mutex<Vec<(ShardId, RunId)>>,
    discarded_runs: Mutex<Vec<(ShardId, RunId)>>,
    expected: Mutex<Option<(Vec<Expected>, Duration)>>,
}

#[derive(Debug, Default)]
struct Seen {
    running: BTreeMap<RunId, ResourceVector>,
    most: ResourceVector,
    starts: Vec<(ShardId, Instant)>,
}

impl Scripted {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Shards in the order in which their runs started, and when.
    pub(crate) fn starts(&self) -> Vec<(ShardId, Instant)> {
        self.seen.lock().unwrap().starts.clone()
    }

    /// How often it was told to remove what dead workers left.
    pub(crate) fn sweeps(&self) -> usize {
        self.sweeps.load(Ordering::SeqCst)
    }

    /// Shards with the runs that won, as it was told to discard the outputs of the others.
    pub(crate) fn discarded(&self) -> Vec<(ShardId, RunId)> {
        self.discarded.lock().unwrap().clone()
    }

    /// Runs whose outputs it was told to discard.
    pub(crate) fn discarded_runs(&self) -> Vec<(ShardId, RunId)> {
        self.discarded_runs.lock().unwrap().clone()
    }

    /// What it was last told to expect, and for how long.
    pub(crate) fn expected(&self) -> Option<(Vec<Expected>, Duration)> {
        self.expected.lock().unwrap().clone()
    }

    /// The most that was reserved at a time by what ran.
    pub(crate) fn most(&self) -> ResourceVector {
        self.seen.lock().unwrap().most.clone()
    }
}

#[async_trait]
impl Executor for Scripted {
    fn units(&self) -> Vec<String> {
        ["fail", "hour", "minute", "moment", "panic", "second"].map(str::to_owned).to_vec()
    }

    fn refuses(&self, unit: &str) -> Option<String> {
        (!self.units().iter().any(|known| known == unit)).then(|| format!("there is no unit `{unit}`"))
    }

    fn enforcement(&self) -> &'static str {
        "none"
    }

    fn expect(&self, expected: Vec<Expected>, for_so_long: Duration) {
        *self.expected.lock().unwrap() = Some((expected, for_so_long));
    }

    fn sweep(&self) -> usize {
        self.sweeps.fetch_add(1, Ordering::SeqCst);
        1
    }

    fn discard_outputs(&self, shard: ShardId, winner: RunId) -> usize {
        self.discarded.lock().unwrap().push((shard, winner));
        1
    }

    fn discard_output(&self, shard: ShardId, run: RunId) -> bool {
        self.discarded_runs.lock().unwrap().push((shard, run));
        true
    }

    async fn execute(&self, execution: Execution) -> Ending {
        let headers = &execution.assignment.headers;
        {
            let mut seen = self.seen.lock().unwrap();
            seen.running.insert(execution.run, headers.reservation.vector.clone());
            let now = seen.running.values().fold(ResourceVector::ZERO, |sum, held| sum.saturating_add(held));
            seen.most = seen.most.max(&now);
            seen.starts.push((headers.shard, Instant::now()));
        }
        execution.usage.set_memory(Bytes(12_345));
        execution.usage.set_rates(CpuMillis(250), BytesPerSecond(4096));
        let takes = match execution.assignment.shard.unit.as_str() {
            "moment" => Duration::from_millis(10),
            "second" => Duration::from_secs(1),
            "minute" => Duration::from_mins(1),
            "hour" => Duration::from_hours(1),
            "panic" => panic!("on purpose"),
            _ => Duration::ZERO,
        };
        let limit = execution.limit.unwrap_or(Duration::MAX);
        let ending = tokio::select! {
            () = tokio::time::sleep(takes.min(limit)) => {
                let outcome = match execution.assignment.shard.unit.as_str() {
                    _ if takes > limit => Outcome::Timeout,
                    "fail" => Outcome::TaskError,
                    _ => Outcome::Succeeded,
                };
                let usage = v1::Usage { cpu_ms: 5, source: "in-process".to_owned(), ..Default::default() };
                Ending { usage: Some(usage), inline_json: "7".to_owned(), ..Ending::failed(outcome, "") }
            }
            () = execution.stop.token().cancelled() => {
                let reason = execution.stop.reason().expect("a reason comes with the signal");
                Ending::failed(reason.outcome(), reason.explanation())
            }
        };
        self.seen.lock().unwrap().running.remove(&execution.run);
        ending
    }
}
