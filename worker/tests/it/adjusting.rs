//! Leases and limits that follow use: with the limits of the real kernel, over a broker in memory.

use std::sync::Arc;
use std::time::Duration;

use forecastle_catalogue::Catalogue;
use forecastle_protos::ids::WorkerId;
use forecastle_protos::v1::{Completed, Outcome};
use forecastle_resources::{Bytes, Priority};
use forecastle_task::Registry;
use forecastle_worker::Executor;
use forecastle_worker::enforcement::EnforcementOptions;
use forecastle_worker::runner::{AllowedRoots, LocalExecutor, Places, PreallocationOptions, Runner, RunnerOptions};

use crate::bench::{enforcer, until};
use crate::frontend_side::{FrontendSide, RunningWorker, Spec};

/// `rising` takes 200 MiB in steps of 4 MiB, about 200 MiB a second at most. `creeping` takes 44 MiB, of which 30 at about
/// 20 MiB a second, and then 25 more at 2 MiB a second, so that there is time to make way for it even on a busy machine.
/// `resting` has 20 MiB until the file in the first argument is there. `told` prints what it may use before and after it
/// has grown.
fn catalogue(folder: &std::path::Path) -> Arc<Catalogue> {
    let go = folder.join("go").display().to_string();
    let text = format!(
        r#"
version = 1
[types.testing]
input = "items"
[[types.testing.stages]]
name = "only"
over = "items"
units = ["rising", "creeping", "resting", "told"]
shard = {{ max_items = 1 }}
[units.rising]
command = ["/usr/bin/perl", "-e", "for (1..50) {{{{ push @x, chr(65) x 4194304; select undef, undef, undef, 0.02 }}}}"]
invoke = "once"
minimum = {{ memory = "4MiB" }}
[units.creeping]
command = ["/usr/bin/perl", "-e", "$x = chr(65) x (14 * 1048576); for (1..15) {{{{ push @x, chr(65) x 2097152; select undef, undef, undef, 0.1 }}}} for (1..25) {{{{ push @x, chr(65) x 1048576; select undef, undef, undef, 0.5 }}}}"]
invoke = "once"
minimum = {{ memory = "4MiB" }}
[units.resting]
command = ["/usr/bin/perl", "-e", "$x = chr(65) x (20 * 1048576); select undef, undef, undef, 0.05 until -e '{go}'"]
invoke = "once"
minimum = {{ memory = "4MiB" }}
[units.told]
command = ["/usr/bin/perl", "-e", "sub told {{{{ open my $f, '<', $ENV{{{{FORECASTLE_ALLOCATION_FILE}}}}; print <$f>, qq(\n) }}}} told; for (1..25) {{{{ push @x, chr(65) x 4194304; select undef, undef, undef, 0.02 }}}} told"]
invoke = "once"
stdout = "told"
minimum = {{ memory = "4MiB" }}
"#
    );
    Arc::new(Catalogue::parse(&text).unwrap_or_else(|errors| panic!("{errors}")))
}

struct Stage {
    side: FrontendSide,
    worker: RunningWorker,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn new(enabled: bool) -> Self {
        Self::settling(enabled, Duration::from_millis(500)).await
    }

    async fn settling(enabled: bool, settle: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let worker = WorkerId::new();
        let options = RunnerOptions {
            launcher: Some(env!("CARGO_BIN_EXE_forecastle-launch").into()),
            ..RunnerOptions::default()
        };
        let runner = Runner::new(
            worker,
            enforcer(&EnforcementOptions::default(), worker).enforcer,
            Places {
                roots: AllowedRoots::new(&[]).unwrap(),
                store: folder.path().join("store"),
                scratch: folder.path().join("scratch"),
            },
            Registry::new(),
            options,
            PreallocationOptions::default(),
        );
        let executor: Arc<dyn Executor> = Arc::new(LocalExecutor::new(catalogue(folder.path()), runner.unwrap()));
        let side = FrontendSide::new().await;
        let worker = RunningWorker::start_with(&side, executor, |options| {
            options.adjustment.enabled = enabled;
            options.adjustment.settle.0 = settle;
        })
        .await;
        Self { side, worker, folder }
    }

    fn go(&self) {
        std::fs::write(self.folder.path().join("go"), "").unwrap();
    }
}

fn spec(unit: &'static str, memory: Bytes) -> Spec {
    Spec { memory, ..Spec::new(unit, 100, 1) }
}

fn changes(completed: &Completed) -> Vec<(&str, &str)> {
    completed.adjustments.iter().map(|change| (change.change.as_str(), change.reason.as_str())).collect()
}

#[tokio::test]
async fn a_command_that_needs_more_than_it_reserved_grows_and_succeeds_at_once() {
    let mut stage = Stage::new(true).await;
    stage.side.publish(&spec("rising", Bytes::mib(64))).await;
    let grown = stage.side.report_where(|report| {
        report.leases.iter().any(|lease| lease.held.as_ref().is_some_and(|held| held.memory_bytes > 64 << 20))
    });
    grown.await;
    let (_, completed) = stage.side.completion().await;
    assert_eq!(completed.outcome(), Outcome::Succeeded, "{completed:?}");
    assert!(changes(&completed).contains(&("grow", "memory-near-limit")), "{:?}", changes(&completed));
    let last = completed.adjustments.last().unwrap().to.clone().unwrap();
    assert!(last.memory_bytes >= completed.usage.unwrap().memory_bytes, "{last:?}");
    assert!(completed.held_memory_byte_seconds > 0.0);
    assert_eq!(completed.reservation.unwrap().vector.unwrap().memory_bytes, 64 << 20, "what it reserved is told too");
    let report = stage.side.report_where(|report| report.leases.is_empty()).await;
    assert_eq!(report.free, report.capacity);
    stage.worker.end().await;
}

#[tokio::test]
async fn without_adjustment_it_is_killed() {
    let mut stage = Stage::new(false).await;
    stage.side.publish(&spec("rising", Bytes::mib(64))).await;
    let (_, completed) = stage.side.completion().await;
    assert_eq!(completed.outcome(), Outcome::OutOfMemory, "{completed:?}");
    assert_eq!(changes(&completed), []);
    stage.worker.end().await;
}

#[tokio::test]
async fn what_is_given_back_lets_another_shard_start_while_the_first_one_runs() {
    let mut stage = Stage::new(true).await;
    // Together more than the worker has.
    let first = stage.side.publish(&spec("resting", Bytes::mib(900))).await;
    assert_eq!(stage.side.claim().await.shard_id, first.to_string());
    let second = stage.side.publish(&spec("rising", Bytes::mib(300))).await;
    assert_eq!(stage.side.outcome_of(second).await, Outcome::Succeeded, "the first one runs on");
    stage.go();
    let (event, completed) = stage.side.completion().await;
    assert_eq!((event.shard_id, completed.outcome()), (first.to_string(), Outcome::Succeeded));
    assert!(changes(&completed).contains(&("shrink", "not-needed")), "{:?}", changes(&completed));
    let held = completed.adjustments.last().unwrap().to.clone().unwrap();
    assert!(held.memory_bytes >= completed.usage.unwrap().memory_bytes && held.memory_bytes < 64 << 20, "{held:?}");
    stage.worker.end().await;
}

#[tokio::test]
async fn without_adjustment_the_second_one_waits_for_the_first() {
    let mut stage = Stage::new(false).await;
    let first = stage.side.publish(&spec("resting", Bytes::mib(900))).await;
    stage.side.claim().await;
    stage.side.publish(&spec("rising", Bytes::mib(300))).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage.go();
    assert_eq!(stage.side.outcome_of(first).await, Outcome::Succeeded);
    stage.worker.end().await;
}

#[tokio::test]
async fn batch_work_makes_way_when_memory_is_short_and_is_told_to_run_again() {
    // So that it gives nothing back of itself.
    let mut stage = Stage::settling(true, Duration::from_mins(10)).await;
    // The worker has 1 GiB: nothing is left for the one that rises.
    let batch = stage.side.publish(&spec("resting", Bytes::mib(960)).priority(Priority::Batch)).await;
    stage.side.claim().await;
    let rising = stage.side.publish(&spec("creeping", Bytes::mib(64)).priority(Priority::Urgent)).await;
    let (event, completed) = stage.side.completion().await;
    assert_eq!((event.shard_id, completed.outcome()), (batch.to_string(), Outcome::Preempted), "{completed:?}");
    assert!(completed.error.contains("memory"), "{}", completed.error);
    assert_eq!(changes(&completed).last(), Some(&("stop", "makes-way")));
    assert_eq!(stage.side.outcome_of(rising).await, Outcome::Succeeded, "it grows into what was given back");
    stage.worker.end().await;
}

#[tokio::test]
async fn a_command_reads_what_it_may_use_now() {
    let mut stage = Stage::new(true).await;
    stage.side.publish(&spec("told", Bytes::mib(64))).await;
    let (_, completed) = stage.side.completion().await;
    assert_eq!(completed.outcome(), Outcome::Succeeded, "{completed:?}");
    let told = std::path::Path::new(completed.output_uri.strip_prefix("file://").unwrap()).join("told");
    let told = std::fs::read_to_string(told).unwrap();
    let told: Vec<serde_json::Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&told[0]["memoryBytes"], &told[0]["cpuMillis"], &told[0]["threads"]),
        (&serde_json::json!(64 << 20), &serde_json::json!(100), &serde_json::json!(1))
    );
    assert!(told[1]["memoryBytes"].as_u64().unwrap() >= 100 << 20, "{told:?}");
    stage.worker.end().await;
    // A worker that is gone leaves nothing behind.
    let scratch = stage.folder.path().join("scratch");
    until(|| std::fs::read_dir(&scratch).is_ok_and(|mut entries| entries.next().is_none()), "scratch to go").await;
}
