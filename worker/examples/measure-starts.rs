//! Measures what a start costs: cold, and warm in a cgroup with a launcher or a process of the program in wait.
//!
//! Pairs of one cold and one warm run in turn, of a command that does nothing and of an isolated task that does nothing.
//! Beside them the same task inside this process, which is the least that a run can take. Each figure is from a run's
//! specification to its ending, its output kept and its cgroup gone.
//!
//! `cargo run -p forecastle-worker --example measure-starts -- [PAIRS]`

#![expect(clippy::print_stdout, reason = "its figures are for whoever started it")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use forecastle_admission::preallocation::Expectation;
use forecastle_catalogue::Catalogue;
use forecastle_protos::ids::{RequestId, RunId, ShardId, WorkerId};
use forecastle_protos::v1::Outcome;
use forecastle_resources::{Bytes, CpuMillis, ResourceVector};
use forecastle_task::Registry;
use forecastle_worker::enforcement::{EnforcementOptions, detect};
use forecastle_worker::execution::{Executor as _, Expected};
use forecastle_worker::runner::{
    AllowedRoots, LocalExecutor, Places, PreallocationOptions, RunSpec, Runner, RunnerOptions, task_process,
};
use forecastle_worker::{Allocation, StopSignal, UsageNow, Worker, WorkerOptions, tasks};

const CATALOGUE: &str = r#"
version = 1
[units.command]
command = ["/bin/true"]
invoke = "once"
[units.isolated]
task = "forecastle.noop"
isolated = true
[units.inside]
task = "forecastle.noop"
"#;

/// Until the next run, so that the one before has left nothing to do.
const PAUSE: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if task_process::is_asked() {
        return Worker::builder(WorkerOptions::default()).run().await;
    }
    let pairs = std::env::args().nth(1).map_or(Ok(200), |pairs| pairs.parse()).context("PAIRS is a number")?;
    let catalogue = Catalogue::parse(CATALOGUE).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let bench = Bench::new(Arc::new(catalogue))?;
    println!("{pairs} pairs of one cold and one warm run, limits by {}; milliseconds", bench.executor.enforcement());
    println!("{:24} {:>8} {:>8} {:>8}", "", "least", "median", "most");
    for unit in ["command", "isolated"] {
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        for _ in 0..pairs {
            bench.expect(unit, 0).await?;
            cold.push(bench.run(unit).await?);
            bench.expect(unit, 1).await?;
            warm.push(bench.run(unit).await?);
        }
        let ratio = print(&format!("{unit}, cold"), cold) / print(&format!("{unit}, warm"), warm);
        println!("{:24} {ratio:>17.2} times as long cold as warm, by the medians", "");
    }
    let mut inside = Vec::new();
    for _ in 0..pairs {
        inside.push(bench.run("inside").await?);
    }
    print("inside this process", inside);
    bench.executor.close().await;
    Ok(())
}

/// Prints a line; the median.
fn print(what: &str, mut times: Vec<Duration>) -> f64 {
    times.sort();
    let at = |place: usize| times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let median = at(times.len() / 2);
    println!("{what:24} {:>8.2} {median:>8.2} {:>8.2}", at(0), at(times.len().saturating_sub(1)));
    median
}

struct Bench {
    catalogue: Arc<Catalogue>,
    runner: Runner,
    executor: LocalExecutor,
    folder: PathBuf,
}

impl Bench {
    fn new(catalogue: Arc<Catalogue>) -> anyhow::Result<Self> {
        let worker = WorkerId::new();
        let folder = std::env::temp_dir().join(format!("forecastle-starts-{worker}"));
        let enforcer = detect(&EnforcementOptions::default(), worker)?;
        if let Some(shortfall) = enforcer.shortfall {
            println!("no cgroups, so that there are none to prepare: {shortfall}");
        }
        let places =
            Places { roots: AllowedRoots::new(&[])?, store: folder.join("store"), scratch: folder.join("scratch") };
        let mut registry = Registry::new();
        tasks::register(&mut registry)?;
        // Examples are beside the programs, in a folder of their own.
        let own = std::env::current_exe()?;
        let launcher = own.parent().and_then(|folder| folder.parent()).map(|folder| folder.join("forecastle-launch"));
        let options = RunnerOptions { launcher, ..RunnerOptions::default() };
        let preallocation = PreallocationOptions::default();
        let runner = Runner::new(worker, enforcer.enforcer, places, registry, options, preallocation)
            .context("cargo build -p forecastle-worker makes what is missing")?;
        let executor = LocalExecutor::new(Arc::clone(&catalogue), runner.clone());
        Ok(Self { catalogue, runner, executor, folder })
    }

    /// Waits until so many are ready.
    async fn expect(&self, unit: &str, count: usize) -> anyhow::Result<()> {
        let expectation = Expectation { starts: 1000.0, at_once: count };
        let expected = Expected { unit: unit.to_owned(), expectation, reservation: reservation() };
        self.executor.expect(vec![expected], Duration::from_mins(1));
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.runner.ready() != count {
            anyhow::ensure!(Instant::now() < deadline, "nothing gets ready");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    async fn run(&self, unit: &str) -> anyhow::Result<Duration> {
        let spec = RunSpec {
            run: RunId::new(),
            shard: ShardId { request: RequestId::new(), stage: 0, index: 0 },
            attempt: 1,
            request_type: "measure".to_owned(),
            tenant: "measure".to_owned(),
            unit: Arc::new(self.catalogue.unit(unit)?.clone()),
            items: Vec::new(),
            parameters: BTreeMap::new(),
            upstream: Vec::new(),
            checkpoint: None,
            reservation: reservation(),
            expected: Duration::from_secs(1),
            deadline_unix_ms: None,
            limit: Some(Duration::from_mins(1)),
            traceparent: None,
            stop: StopSignal::new(),
            usage: UsageNow::default(),
            allocation: Allocation::default(),
        };
        let begun = Instant::now();
        let ending = self.runner.run(spec).await;
        let took = begun.elapsed();
        anyhow::ensure!(ending.outcome == Outcome::Succeeded, "{}", ending.error);
        Ok(took)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn reservation() -> ResourceVector {
    ResourceVector::new(CpuMillis::cores(1), Bytes::mib(64))
}
