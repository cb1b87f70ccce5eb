//! What is made ready for work that is expected, and what a run finds ready.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forecastle_admission::preallocation::Expectation;
use forecastle_protos::v1::Outcome;
use forecastle_resources::{Bytes, CpuMillis, ResourceVector};
use forecastle_worker::Ending;
use forecastle_worker::enforcement::EnforcementOptions;
use forecastle_worker::execution::{Executor as _, Expected};
use forecastle_worker::runner::{LocalExecutor, RunSpec, RunnerOptions};

use crate::bench::{Bench, catalogue, result, script, until};
use crate::isolated_tasks::{bench, isolated, processes, register};

const LONG: Duration = Duration::from_mins(1);

fn vector(memory: u64) -> ResourceVector {
    ResourceVector::new(CpuMillis::cores(1), Bytes::mib(memory))
}

fn digits() -> RunSpec {
    isolated("example.digits", &[("below", 100)])
}

/// Makes this many ready for the unit of a run.
async fn make_ready(bench: &Bench, unit: &str, memory: u64, count: usize, for_so_long: Duration) -> LocalExecutor {
    let executor = LocalExecutor::new(Arc::new(catalogue(unit)), bench.runner.clone());
    let expectation = Expectation { starts: 1000.0, at_once: count };
    let expected = Expected { unit: "u".to_owned(), expectation, reservation: vector(memory) };
    executor.expect(vec![expected], for_so_long);
    until(|| bench.runner.ready() == count, "what is expected to be ready").await;
    executor
}

const TASK: &str = "task = \"example.digits\"\nisolated = true";
const COMMAND: &str = "command = [\"/bin/sh\", \"-c\", \"cat /proc/self/cgroup\"]\ninvoke = \"once\"";

/// The sum of digits that a run has found.
fn sum(ending: &Ending) -> &str {
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    &ending.inline_json
}

#[tokio::test]
async fn a_task_finds_its_process_ready_and_another_is_made() {
    let bench = bench();
    let cold = bench.run(digits()).await;
    let executor = make_ready(&bench, TASK, 64, 2, LONG).await;
    let ready = bench.waiting();
    assert_eq!(ready.len(), 2, "{ready:?}");
    let warm = bench.run(digits()).await;
    assert_eq!(sum(&warm), sum(&cold));
    assert!(bench.waiting().iter().filter(|folder| ready.contains(folder)).count() <= 1, "one of them was used");
    until(|| bench.runner.ready() == 2, "another to be made").await;
    executor.close().await;
    assert_eq!((bench.runner.ready(), bench.waiting()), (0, Vec::new()), "nothing is left");
    // And nothing is made ready any more.
    executor.expect(
        vec![Expected {
            unit: "u".to_owned(),
            expectation: Expectation { starts: 9.0, at_once: 9 },
            reservation: vector(64),
        }],
        LONG,
    );
    assert_eq!(sum(&bench.run(digits()).await), sum(&cold));
    assert_eq!(bench.runner.ready(), 0);
}

#[tokio::test]
async fn a_command_runs_in_the_cgroup_that_was_ready_within_its_own_limits() {
    let bench = bench();
    // Made for another size and another command.
    make_ready(&bench, COMMAND, 16, 1, LONG).await;
    let show = script("cat /proc/self/cgroup > $FORECASTLE_OUTPUT/cgroup; head -c 50M /dev/zero | tail | wc -c");
    let ending = bench.run(RunSpec { reservation: vector(128), ..show }).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    assert!(result(&ending, "cgroup").contains("/warm-"), "{}", result(&ending, "cgroup"));

    until(|| bench.runner.ready() == 1, "another to be made").await;
    let greedy = script("cat /proc/self/cgroup; head -c 200M /dev/zero | tail");
    let ending = bench.run(RunSpec { reservation: vector(24), ..greedy }).await;
    assert_eq!(ending.outcome, Outcome::OutOfMemory, "{ending:?}");
    bench.runner.close().await;
}

#[tokio::test]
async fn what_was_killed_while_it_waited_is_not_used() {
    let bench = bench();
    make_ready(&bench, TASK, 64, 1, LONG).await;
    let folder = bench.waiting().remove(0);
    let pid = processes(&folder)[0];
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    until(|| processes(&folder).is_empty(), "it to be gone").await;
    for _ in 0..3 {
        assert_eq!(sum(&bench.run(digits()).await), r#"{"next":100,"sum":900}"#);
    }
    bench.runner.close().await;
}

#[tokio::test]
async fn what_is_not_expected_any_more_goes() {
    let bench = bench();
    let executor = make_ready(&bench, TASK, 64, 2, LONG).await;
    executor.expect(Vec::new(), LONG);
    until(|| bench.waiting().is_empty(), "what waited to go").await;
    make_ready(&bench, COMMAND, 64, 1, Duration::from_secs(1)).await;
    until(|| bench.waiting().is_empty(), "what was expected too long ago to go").await;
    bench.runner.close().await;
}

#[tokio::test]
async fn a_program_that_serves_no_tasks_keeps_commands_from_nothing() {
    let bench = Bench::exactly(
        &EnforcementOptions::default(),
        &RunnerOptions { task_program: Some(PathBuf::from("/bin/true")), ..RunnerOptions::default() },
        register,
    );
    let executor = LocalExecutor::new(Arc::new(catalogue(TASK)), bench.runner.clone());
    let expectation = Expectation { starts: 9.0, at_once: 9 };
    executor.expect(vec![Expected { unit: "u".to_owned(), expectation, reservation: vector(64) }], LONG);
    let ending = bench.run(script("true")).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    assert_eq!(bench.runner.ready(), 0);
    executor.close().await;
}
