//! Scratch disk: what a run writes beyond what it reserved ends it.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use forecastle_protos::v1::Outcome;
use forecastle_resources::Bytes;
use forecastle_task::{Context, Task, TaskError};
use forecastle_worker::enforcement::{EnforcementOptions, Mechanism};
use forecastle_worker::runner::RunnerOptions;

use crate::bench::{Bench, cgroups, lives, script, spec};

/// Writes 8 MiB to the scratch folder, and would then stay for long, with a child in a session of its own.
const WRITES: &str = "setsid /bin/sleep 300 & head -c 8388608 /dev/zero > \"$TMPDIR/large\"; exec /bin/sleep 300";

/// Writes 8 MiB to the scratch folder and is done.
const WRITES_AND_ENDS: &str = "head -c 8388608 /dev/zero > \"$FORECASTLE_SCRATCH/large\"; sleep 0.5";

fn without_limits() -> Bench {
    let enforcement = EnforcementOptions { mechanism: Some(Mechanism::Rusage), ..EnforcementOptions::default() };
    Bench::with(&enforcement, &RunnerOptions::default(), |_| {})
}

#[tokio::test]
async fn a_run_that_uses_more_than_it_reserved_is_ended_with_its_whole_tree() {
    for bench in [Bench::new(), without_limits()] {
        let mut spec = script(WRITES);
        spec.reservation.scratch = Bytes::mib(4);
        let (run, started, usage) = (spec.run, Instant::now(), spec.usage.clone());
        let ending = bench.run(spec).await;
        assert_eq!(ending.outcome, Outcome::TaskError, "{ending:?}");
        let used = usage.scratch();
        assert!(used > Bytes::mib(4), "{used}");
        let expected = format!("it used {used} of scratch disk and had reserved 4MiB");
        assert!(ending.error.contains(&expected) && ending.error.contains("`reserve.scratch`"), "{}", ending.error);
        assert!(started.elapsed() < Duration::from_secs(20));
        assert!(!lives(run), "nothing of it is left");
        assert!(cgroups(run).is_empty());
    }
}

#[tokio::test]
async fn a_run_that_stays_within_what_it_reserved_succeeds_and_is_told_how_much_that_is() {
    let bench = Bench::new();
    let mut spec = script(&format!("test $FORECASTLE_SCRATCH_BYTES = 16777216 || exit 9; {WRITES_AND_ENDS}"));
    spec.reservation.scratch = Bytes::mib(16);
    let usage = spec.usage.clone();
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    assert!(usage.scratch() >= Bytes::mib(8), "it is told what was there: {}", usage.scratch());
}

#[tokio::test]
async fn a_run_that_reserved_none_is_not_measured() {
    let bench = Bench::new();
    let spec = script(WRITES_AND_ENDS);
    let usage = spec.usage.clone();
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    assert_eq!(usage.scratch(), Bytes::ZERO);
}

/// Writes 8 MiB to its scratch folder, and goes on for long.
struct Writes;

#[async_trait]
impl Task for Writes {
    const NAME: &'static str = "tests.writes";
    type Parameters = serde_json::Value;
    type Output = ();

    async fn run(&self, _: Self::Parameters, context: &Context) -> Result<(), TaskError> {
        std::fs::write(context.scratch().join("large"), vec![7; 8 << 20]).unwrap();
        tokio::time::sleep(Duration::from_mins(5)).await;
        Ok(())
    }
}

#[tokio::test]
async fn a_typed_task_is_ended_for_it_too() {
    let bench = Bench::with(&EnforcementOptions::default(), &RunnerOptions::default(), |registry| {
        registry.register(Writes).unwrap();
    });
    let mut spec = spec("task = \"tests.writes\"");
    spec.reservation.scratch = Bytes::mib(4);
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::TaskError, "{ending:?}");
    assert!(ending.error.contains("had reserved 4MiB"), "{}", ending.error);
}
