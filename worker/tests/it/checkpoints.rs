//! Runs that are stopped to run again: how far they came reaches the next attempt.

use std::time::Duration;

use forecastle_protos::v1::{self, Outcome};
use forecastle_resources::Bytes;
use forecastle_task::{Context, Task, TaskError, async_trait};
use forecastle_worker::enforcement::EnforcementOptions;
use forecastle_worker::runner::{RunSpec, RunnerOptions};
use forecastle_worker::{Ending, StopReason};

use crate::bench::{Bench, appears, lives, result, script, spec};

/// Counts up, says when it has begun, and on SIGTERM writes down how far it is.
fn counting(file: &std::path::Path, farewell: &str) -> RunSpec {
    script(&format!(
        "n=$(cat \"${{FORECASTLE_CHECKPOINT_FILE:-/dev/null}}\"); n=${{n:-0}}
         trap '{farewell}' TERM
         touch {}
         while [ $n -lt 1000000 ]; do n=$((n+1)); sleep 0.02; done",
        file.display()
    ))
}

/// Runs it, stops it once it has begun, and answers with how it ended.
async fn stopped(bench: &Bench, spec: RunSpec, reason: StopReason) -> Ending {
    let (begun, stop) = (bench.folder.path().join("begun"), spec.stop.clone());
    let stopping = async {
        appears(&begun).await;
        std::fs::remove_file(&begun).unwrap();
        stop.stop(reason);
    };
    tokio::join!(bench.run(spec), stopping).0
}

fn text(checkpoint: &v1::Checkpoint) -> String {
    std::fs::read_to_string(checkpoint.uri.strip_prefix("file://").unwrap()).unwrap()
}

#[tokio::test]
async fn a_command_that_is_drained_writes_a_checkpoint_and_the_next_attempt_reads_it() {
    let bench = Bench::new();
    let begun = bench.folder.path().join("begun");
    // Exit code 0 says success, but it was told to end before.
    let write = "echo $((n+1000)) > $FORECASTLE_CHECKPOINT_OUT; exit 0";
    for reason in [StopReason::Drained, StopReason::Preempted] {
        let first = counting(&begun, write);
        let (shard, run) = (first.shard, first.run);
        let ending = stopped(&bench, first, reason.clone()).await;
        assert_eq!(ending.outcome, reason.outcome(), "{ending:?}");
        assert!(!lives(run) && ending.files.is_empty());
        let checkpoint = ending.checkpoint.clone().unwrap_or_else(|| panic!("{ending:?}"));
        assert_eq!(checkpoint.run_id, run.to_string());
        let reached: u64 = text(&checkpoint).trim().parse().unwrap();
        assert!(reached >= 1000 && checkpoint.bytes == text(&checkpoint).len() as u64, "{checkpoint:?}");

        let second = RunSpec { shard, attempt: 2, checkpoint: Some(checkpoint), ..counting(&begun, write) };
        let ending = stopped(&bench, second, reason).await;
        let further: u64 = text(&ending.checkpoint.unwrap()).trim().parse().unwrap();
        assert!(further >= reached + 1000, "{further} is not beyond {reached}");
    }
}

#[tokio::test]
async fn half_a_checkpoint_one_that_is_too_large_and_one_of_a_cancelled_run_are_none() {
    let options = RunnerOptions {
        checkpoint_within: Duration::from_millis(500).into(),
        checkpoint_limit: Bytes(8),
        ..RunnerOptions::default()
    };
    let bench = Bench::with(&EnforcementOptions::default(), &options, |_| {});
    let begun = bench.folder.path().join("begun");
    for (farewell, reason) in [
        // It takes longer than it has, and is killed.
        ("echo half > $FORECASTLE_CHECKPOINT_OUT; while :; do sleep 0.1; done", StopReason::Drained),
        // Nothing says that a program that dies of the signal had written all.
        ("echo half > $FORECASTLE_CHECKPOINT_OUT; trap - TERM; kill -TERM $$", StopReason::Drained),
        ("echo 123456789 > $FORECASTLE_CHECKPOINT_OUT; exit 0", StopReason::Drained),
        ("echo 1 > $FORECASTLE_CHECKPOINT_OUT; exit 0", StopReason::Cancelled("by a test".to_owned())),
    ] {
        let spec = counting(&begun, farewell);
        let (run, folder) = (spec.run, bench.folder.path().join(format!("store/{}/0.7", spec.shard.request)));
        let ending = stopped(&bench, spec, reason.clone()).await;
        assert_eq!((ending.outcome, &ending.checkpoint), (reason.outcome(), &None), "{farewell}: {ending:?}");
        assert!(!lives(run), "{farewell}");
        for name in ["checkpoint", "checkpoint.part", "output"] {
            assert!(!folder.join(run.to_string()).join(name).exists(), "{farewell}: {name} stays");
        }
    }
}

#[tokio::test]
async fn without_its_file_a_run_begins_anew() {
    let bench = Bench::new();
    let missing = v1::Checkpoint { uri: "file:///nowhere/checkpoint".to_owned(), bytes: 1, run_id: "gone".to_owned() };
    let show = script("echo ${FORECASTLE_CHECKPOINT_FILE:-none} > $FORECASTLE_OUTPUT/given");
    let ending = bench.run(RunSpec { checkpoint: Some(missing), ..show }).await;
    assert_eq!(result(&ending, "given"), "none\n", "{ending:?}");
}

/// Adds one to what it was given, keeps that, and waits to be told to end.
struct Counts;

#[async_trait]
impl Task for Counts {
    const NAME: &'static str = "test.counts";
    type Parameters = serde_json::Value;
    type Output = ();

    async fn run(&self, _: serde_json::Value, context: &Context) -> Result<(), TaskError> {
        let reached = context.checkpoint().map_or(0, |given| given[0]);
        context.keep_checkpoint(vec![reached]).map_err(TaskError::permanent)?;
        std::fs::write(context.items()[0].path.with_file_name("../begun"), "")?;
        context.cancellation().cancelled().await;
        // Told to end: the last word.
        context.keep_checkpoint(vec![reached + 1]).map_err(TaskError::permanent)?;
        Err(TaskError::retryable("told to end"))
    }
}

#[tokio::test]
async fn a_task_keeps_what_the_next_attempt_is_given() {
    let bench = Bench::with(&EnforcementOptions::default(), &RunnerOptions::default(), |registry| {
        registry.register(Counts).unwrap();
    });
    let mut checkpoint = None;
    for attempt in 1..=3 {
        let mut spec = spec("task = \"test.counts\"");
        spec.items = vec![bench.item("a", "x")];
        (spec.attempt, spec.checkpoint) = (attempt, checkpoint);
        let ending = stopped(&bench, spec, StopReason::Drained).await;
        assert_eq!(ending.outcome, Outcome::Drained, "{ending:?}");
        checkpoint = ending.checkpoint;
        let path = checkpoint.as_ref().unwrap().uri.strip_prefix("file://").unwrap().to_owned();
        assert_eq!(std::fs::read(path).unwrap(), [u8::try_from(attempt).unwrap()]);
    }
}
