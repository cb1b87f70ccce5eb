//! Typed tasks in processes of their own: limited, measured and ended as commands are.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forecastle_catalogue::ParameterValue;
use forecastle_protos::v1::Outcome;
use forecastle_resources::{Bytes, CpuMillis, ResourceVector};
use forecastle_task::{Context, Registry, Task, TaskError, async_trait};
use forecastle_worker::StopReason;
use forecastle_worker::enforcement::EnforcementOptions;
use forecastle_worker::runner::{RunSpec, RunnerOptions};
use serde_json::Value;

use crate::bench::{Bench, cgroups, result, spec, until};

/// What the worker's registry knows by name, and the example's program runs.
macro_rules! known {
    ($name:ident, $task:literal) => {
        struct $name;

        #[async_trait]
        impl Task for $name {
            const NAME: &'static str = $task;
            type Parameters = Value;
            type Output = ();

            async fn run(&self, _: Value, _: &Context) -> Result<(), TaskError> {
                Err(TaskError::permanent("it ran inside the worker"))
            }
        }
    };
}

known!(Digits, "example.digits");
known!(Memory, "example.memory");
known!(Elsewhere, "example.elsewhere");

pub(crate) fn register(registry: &mut Registry) {
    registry.register(Digits).unwrap();
    registry.register(Memory).unwrap();
    registry.register(Elsewhere).unwrap();
}

pub(crate) fn bench() -> Bench {
    Bench::with(&EnforcementOptions::default(), &RunnerOptions::default(), register)
}

pub(crate) fn isolated(task: &str, parameters: &[(&str, i64)]) -> RunSpec {
    let mut spec = spec(&format!("task = \"{task}\"\nisolated = true"));
    let given = parameters.iter().map(|(name, value)| ((*name).to_owned(), ParameterValue::Integer(*value)));
    spec.parameters = given.collect();
    spec
}

fn panicking(mib: i64) -> RunSpec {
    let mut spec = isolated("example.memory", &[("mib", mib)]);
    spec.parameters.insert("panics".to_owned(), ParameterValue::Flag(true));
    spec
}

/// The processes in the cgroup of this name.
pub(crate) fn processes(folder: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[tokio::test]
async fn it_is_measured_and_told_what_it_may_use_and_nothing_of_the_workers() {
    let bench = bench();
    let reservation = ResourceVector::new(CpuMillis(1500), Bytes::mib(128));
    let spec = RunSpec { reservation, ..isolated("example.memory", &[("mib", 48)]) };
    let run = spec.run;
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    assert_eq!(result(&ending, "bytes"), (48 << 20).to_string());
    let usage = ending.usage.clone().unwrap();
    assert!((48 << 20..128 << 20).contains(&usage.memory_bytes), "{usage:?}");
    assert!(usage.source.starts_with("cgroup") && usage.cpu_ms > 0, "{usage:?}");
    let told: Value = serde_json::from_str(&ending.inline_json).unwrap();
    assert_eq!(told["cpu_millis"], 1500);
    assert!(told["directory"].as_str().unwrap().contains(&run.to_string()), "its scratch folder: {told}");
    let environment = told["environment"].as_object().unwrap();
    assert_eq!(environment["OMP_NUM_THREADS"], "2");
    assert!(environment.keys().all(|name| !name.starts_with("CARGO")), "the worker's own: {environment:?}");
    assert!(cgroups(run).is_empty());
}

#[tokio::test]
async fn one_that_takes_too_much_is_out_of_memory_and_the_worker_lives() {
    let bench = bench();
    let ending = bench.run(isolated("example.memory", &[("mib", 200)])).await;
    assert_eq!(ending.outcome, Outcome::OutOfMemory, "{ending:?}");
    assert!(ending.error.contains("example.memory") && ending.files.is_empty(), "{ending:?}");
}

#[tokio::test]
async fn a_panic_is_its_error_and_its_words_are_kept() {
    let bench = bench();
    let ending = bench.run(panicking(1)).await;
    assert_eq!(ending.outcome, Outcome::TaskError, "{ending:?}");
    assert!(ending.error.contains("panicked: as it should"), "{}", ending.error);
    assert!(ending.log_tail.contains("as it should"), "{}", ending.log_tail);
}

#[tokio::test]
async fn a_program_without_the_task_says_so_and_one_that_serves_none_too() {
    let ending = bench().run(isolated("example.elsewhere", &[])).await;
    assert_eq!(ending.outcome, Outcome::PermanentError, "{ending:?}");
    assert!(ending.error.contains("no task `example.elsewhere`"), "{}", ending.error);

    let options = RunnerOptions { task_program: Some(PathBuf::from("/bin/true")), ..RunnerOptions::default() };
    let wrong = Bench::exactly(&EnforcementOptions::default(), &options, register);
    let ending = wrong.run(isolated("example.digits", &[("below", 1)])).await;
    assert_eq!(ending.outcome, Outcome::TaskError, "{ending:?}");
    assert!(ending.error.contains("/bin/true does not serve tasks"), "{}", ending.error);
}

#[tokio::test]
async fn a_program_that_talks_nonsense_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("nonsense");
    let text = "#!/bin/sh\necho '\"Ready\"' >&0\nread order\necho 'the answer is 42' >&0\nsleep 300\n";
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let options = RunnerOptions { task_program: Some(program), ..RunnerOptions::default() };
    let bench = Bench::exactly(&EnforcementOptions::default(), &options, register);
    let run = isolated("example.digits", &[("below", 1)]);
    let ending = tokio::time::timeout(Duration::from_secs(30), bench.run(run)).await.expect("it is not waited for");
    assert_eq!(ending.outcome, Outcome::TaskError, "{ending:?}");
    assert!(ending.error.contains("its answer makes no sense"), "{}", ending.error);
}

#[tokio::test]
async fn one_that_is_drained_goes_on_where_it_was() {
    let bench = bench();
    let first = isolated("example.digits", &[("below", 1000), ("pause_ms", 1)]);
    let (shard, stop, run) = (first.shard, first.stop.clone(), first.run);
    let part = bench.folder.path().join(format!("store/{}/0.7/{run}/checkpoint.part", shard.request));
    let stopping = async {
        // Somewhere in the middle.
        until(|| part.exists(), "the first checkpoint").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.stop(StopReason::Drained);
    };
    let ending = tokio::join!(bench.run(first), stopping).0;
    assert_eq!(ending.outcome, Outcome::Drained, "{ending:?}");
    let checkpoint = ending.checkpoint.unwrap();
    let path = PathBuf::from(checkpoint.uri.strip_prefix("file://").unwrap());
    let reached: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!((1..1000).contains(&reached["next"].as_u64().unwrap()), "{reached}");
    assert!(!path.with_file_name("checkpoint.part").exists() && !path.with_file_name("checkpoint.part.next").exists());

    let second = isolated("example.digits", &[("below", 1000)]);
    let ending = bench.run(RunSpec { shard, attempt: 2, checkpoint: Some(checkpoint), ..second }).await;
    assert_eq!(ending.inline_json, r#"{"next":1000,"sum":13500}"#, "{ending:?}");
}

#[tokio::test]
async fn one_that_is_killed_from_outside_or_takes_too_long_is_told_apart() {
    let bench = bench();
    let killed = isolated("example.digits", &[("below", 1000), ("pause_ms", 1000)]);
    let run = killed.run;
    let killing = async {
        until(|| cgroups(run).iter().any(|folder| !processes(folder).is_empty()), "its process").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let pid = cgroups(run).iter().flat_map(|folder| processes(folder)).next().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
    };
    let ending = tokio::join!(bench.run(killed), killing).0;
    assert_eq!((ending.outcome, ending.signal), (Outcome::TaskError, 9), "{ending:?}");
    assert!(ending.error.contains("signal 9 (SIGKILL)"), "{}", ending.error);

    let limit = Some(Duration::from_millis(300));
    let slow = isolated("example.digits", &[("below", 1000), ("pause_ms", 60_000)]);
    let ending = bench.run(RunSpec { limit, ..slow }).await;
    assert_eq!(ending.outcome, Outcome::Timeout, "{ending:?}");

    let cancelled = isolated("example.digits", &[("below", 1000), ("pause_ms", 1)]);
    cancelled.stop.stop(StopReason::Cancelled("by a test".to_owned()));
    assert_eq!(bench.run(cancelled).await.outcome, Outcome::Cancelled);
}
