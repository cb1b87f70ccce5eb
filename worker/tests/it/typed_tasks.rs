//! Typed tasks inside the worker.

use std::time::Duration;

use forecastle_protos::v1::{self, Outcome};
use forecastle_task::{Context, Task, TaskError, async_trait};
use forecastle_worker::StopReason;
use forecastle_worker::enforcement::EnforcementOptions;
use forecastle_worker::runner::RunnerOptions;
use serde::{Deserialize, Serialize};

use crate::bench::{Bench, appears, names, result, script, spec};

struct Copy;

#[derive(Deserialize)]
struct Nothing {}

#[derive(Serialize)]
struct Copied {
    files: usize,
}

#[async_trait]
impl Task for Copy {
    const NAME: &'static str = "test.copy";
    type Parameters = Nothing;
    type Output = Copied;

    async fn run(&self, _: Nothing, context: &Context) -> Result<Copied, TaskError> {
        for item in context.items() {
            let (from, to) = (item.path.clone(), context.output().join(&item.name));
            context.blocking(move || std::fs::copy(from, to)).await??;
        }
        Ok(Copied { files: context.items().len() })
    }
}

struct Panics;

#[async_trait]
impl Task for Panics {
    const NAME: &'static str = "test.panics";
    type Parameters = Nothing;
    type Output = ();

    async fn run(&self, _: Nothing, context: &Context) -> Result<(), TaskError> {
        std::fs::write(context.output().join("half"), "x")?;
        panic!("as it should")
    }
}

struct Fails;

#[async_trait]
impl Task for Fails {
    const NAME: &'static str = "test.fails";
    type Parameters = Nothing;
    type Output = ();

    async fn run(&self, _: Nothing, _: &Context) -> Result<(), TaskError> {
        Err(TaskError::permanent("the answer is no"))
    }
}

/// Waits for ever; says when it has started.
struct Waits;

#[async_trait]
impl Task for Waits {
    const NAME: &'static str = "test.waits";
    type Parameters = Nothing;
    type Output = ();

    async fn run(&self, _: Nothing, context: &Context) -> Result<(), TaskError> {
        let item = &context.items()[0].path;
        std::fs::write(item.with_extension("started"), "")?;
        context.cancellation().cancelled().await;
        Err(TaskError::retryable("told to end"))
    }
}

fn bench() -> Bench {
    Bench::with(&EnforcementOptions::default(), &RunnerOptions::default(), |registry| {
        registry.register(Copy).unwrap();
        registry.register(Panics).unwrap();
        registry.register(Fails).unwrap();
        registry.register(Waits).unwrap();
    })
}

#[tokio::test]
async fn a_task_reads_items_writes_files_and_returns_a_result() {
    let bench = bench();
    let mut spec = spec("task = \"test.copy\"");
    spec.items = vec![bench.item("a", "abc")];
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    assert_eq!(names(&ending), ["a"]);
    assert_eq!(result(&ending, "a"), "abc");
    assert_eq!(ending.inline_json, "{\"files\":1}");
    assert_eq!(ending.usage.unwrap().source, "in-process");
}

#[tokio::test]
async fn a_panic_fails_that_run_alone() {
    let bench = bench();
    let ending = bench.run(spec("task = \"test.panics\"")).await;
    assert_eq!(ending.outcome, Outcome::TaskError, "{ending:?}");
    assert_eq!(ending.error, "the task panicked: as it should");
    assert!(ending.output_uri.is_empty() && ending.files.is_empty());
    assert_eq!(bench.run(spec("task = \"forecastle.noop\"")).await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn errors_and_unknown_tasks_are_told_apart() {
    let bench = bench();
    let ending = bench.run(spec("task = \"test.fails\"")).await;
    assert_eq!((ending.outcome, ending.error.as_str()), (Outcome::PermanentError, "the answer is no"));
    let ending = bench.run(spec("task = \"test.unknown\"")).await;
    assert_eq!(ending.outcome, Outcome::Unsupported, "{ending:?}");
    assert!(ending.error.contains("test.unknown"));
}

#[tokio::test]
async fn a_task_hears_that_it_should_stop() {
    let bench = bench();
    let mut stopped = spec("task = \"test.waits\"");
    stopped.items = vec![bench.item("first", "")];
    let (stop, started) = (stopped.stop.clone(), bench.folder.path().join("input/first.started"));
    let stopping = async {
        appears(&started).await;
        stop.stop(StopReason::Drained);
    };
    let (ending, ()) = tokio::join!(bench.run(stopped), stopping);
    assert_eq!(ending.outcome, Outcome::Drained, "{ending:?}");

    let mut late = spec("task = \"test.waits\"");
    late.items = vec![bench.item("second", "")];
    late.limit = Some(Duration::from_millis(50));
    assert_eq!(bench.run(late).await.outcome, Outcome::Timeout);
}

#[tokio::test]
async fn a_manifest_is_the_same_whichever_runs_won() {
    let bench = bench();
    let mut manifests = Vec::new();
    for _ in 0..2 {
        let upstream = bench
            .run(script("echo one > $FORECASTLE_OUTPUT/one; echo two > $FORECASTLE_OUTPUT/two.log; echo said"))
            .await;
        let mut spec = spec("task = \"forecastle.manifest\"");
        spec.upstream = vec![v1::ShardResult {
            shard_id: spec.shard.to_string(),
            stage: "work".to_owned(),
            unit: "u".to_owned(),
            run_id: spec.run.to_string(),
            attempt: 1,
            output_uri: upstream.output_uri.clone(),
            files: upstream.files.clone(),
            inline_json: String::new(),
        }];
        let ending = bench.run(spec).await;
        assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
        manifests.push((result(&ending, "MANIFEST"), ending.inline_json));
    }
    assert_eq!(manifests[0], manifests[1]);
    let paths: Vec<_> = manifests[0].0.lines().map(|line| line.rsplit("  ").next().unwrap()).collect();
    assert_eq!(paths, ["work/u/one", "work/u/two.log"]);
    assert!(manifests[0].1.contains("\"files\":2"), "{}", manifests[0].1);
}
