//! What a run may use, and what it is measured to have used: with the limits of the real kernel.

use std::io::Write as _;
use std::time::Duration;

use forecastle_protos::v1::Outcome;
use forecastle_resources::{Bytes, CpuMillis};
use forecastle_worker::enforcement::control_file::processes;
use forecastle_worker::enforcement::{CpuMode, EnforcementOptions, Mechanism};
use forecastle_worker::runner::RunnerOptions;

use crate::bench::{Bench, appears, cgroups, enforcer, lives, result, script, spec, until};

/// A command that has 200 MiB in its hands at once.
const TWO_HUNDRED: &str = r#"command = ["/usr/bin/perl", "-e", "vec($x, 200 * 1024 * 1024 - 1, 8) = 1; print length $x"]
invoke = "once"
stdout = "length""#;

#[tokio::test]
async fn a_command_that_needs_200_mib_is_killed_within_64_and_told_so() {
    let bench = Bench::new();
    let spec = spec(TWO_HUNDRED);
    let run = spec.run;
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::OutOfMemory, "{ending:?}");
    assert!(ending.error.contains("/usr/bin/perl") && ending.error.contains("memory"), "{}", ending.error);
    let usage = ending.usage.unwrap();
    assert!(Bytes(usage.memory_bytes) <= Bytes::mib(65), "{usage:?}");
    assert!(ending.output_uri.is_empty() && ending.files.is_empty());
    assert!(!lives(run) && cgroups(run).is_empty());
}

#[tokio::test]
async fn a_command_that_needs_200_mib_runs_within_300_and_is_measured() {
    let bench = Bench::new();
    let mut spec = spec(TWO_HUNDRED);
    spec.reservation.memory = Bytes::mib(300);
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    assert_eq!(result(&ending, "length"), (200 << 20).to_string());
    let usage = ending.usage.unwrap();
    assert!((Bytes::mib(190)..Bytes::mib(260)).contains(&Bytes(usage.memory_bytes)), "{usage:?}");
    assert!(usage.source.starts_with("cgroup-v"), "{usage:?}");
}

#[tokio::test]
async fn a_part_of_a_run_that_is_killed_for_memory_makes_all_of_it_so_whatever_the_exit_status() {
    let bench = Bench::new();
    let ending = bench.run(script("perl -e 'vec($x, 200 * 1024 * 1024, 8) = 1'; exit 0")).await;
    assert_eq!(ending.outcome, Outcome::OutOfMemory, "{ending:?}");
}

#[tokio::test]
async fn a_run_that_an_operator_kills_is_no_run_out_of_memory() {
    let bench = Bench::new();
    let ready = bench.folder.path().join("ready");
    let spec = script(&format!("touch {}; while :; do sleep 0.05; done", ready.display()));
    let run = spec.run;
    let killing = async {
        appears(&ready).await;
        // As `kill -9` does, to every process of the run.
        for pid in cgroups(run).iter().flat_map(|cgroup| processes(cgroup).unwrap()) {
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_raw(pid).unwrap(),
                rustix::process::Signal::KILL,
            );
        }
    };
    let (ending, ()) = tokio::join!(bench.run(spec), killing);
    assert_eq!((ending.outcome, ending.signal), (Outcome::TaskError, 9), "{ending:?}");
    assert!(ending.error.contains("signal 9 (SIGKILL)"), "{}", ending.error);
    assert!(!lives(run) && cgroups(run).is_empty());
}

#[tokio::test]
async fn a_run_that_is_killed_for_memory_before_its_time_is_up_is_no_timeout_and_no_crash() {
    let bench = Bench::new();
    let mut spec = script("perl -e 'vec($x, 200 * 1024 * 1024, 8) = 1'; kill -SEGV $$");
    spec.limit = Some(Duration::from_secs(50));
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::OutOfMemory, "{ending:?}");
}

#[tokio::test]
async fn reading_a_file_of_300_mib_within_64_is_no_use_of_memory() {
    let bench = Bench::new();
    let item = bench.item("large", "");
    let mut file = std::fs::File::options().append(true).open(&item.path).unwrap();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..300 {
        file.write_all(&block).unwrap();
    }
    drop(file);
    let mut spec = spec("command = [\"/bin/cat\", \"{input}\"]\ninvoke = \"each\"\nstdout = \"{name}.copy\"");
    spec.items = vec![item];
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    assert_eq!(ending.files[0].bytes, 300 << 20);
    let usage = ending.usage.unwrap();
    assert!(Bytes(usage.memory_bytes) < Bytes::mib(20), "{usage:?}");
}

#[tokio::test]
async fn what_the_worker_itself_uses_is_not_counted() {
    let bench = Bench::new();
    let ours = vec![1u8; 150 << 20];
    let ending = bench.run(spec("command = [\"/bin/true\"]\ninvoke = \"once\"")).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    let usage = ending.usage.unwrap();
    assert!(Bytes(usage.memory_bytes) < Bytes::mib(16), "{usage:?} beside {}", ours.len());
    assert!(usage.memory_bytes > 0, "{usage:?}");
}

#[tokio::test]
async fn a_small_program_runs_within_the_least_memory_that_is_ever_reserved() {
    let bench = Bench::new();
    let mut spec = spec("command = [\"/bin/true\"]\ninvoke = \"once\"");
    spec.reservation.memory = Bytes::mib(4);
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
}

#[tokio::test]
async fn cpu_time_is_measured() {
    let bench = Bench::new();
    // Until it has had 400 ms of CPU itself, however slow the machine.
    let busy = "command = [\"/usr/bin/perl\", \"-e\", \"do {{ $n++ for 1..1000 }} until (times)[0] > 0.4\"]\ninvoke = \"once\"";
    let ending = bench.run(spec(busy)).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    let usage = ending.usage.unwrap();
    // What it sees itself can be counted in ticks, which is coarse.
    assert!((200..800).contains(&usage.cpu_ms), "{usage:?}");
    assert!(usage.duration_ms + 20 >= usage.cpu_ms, "{usage:?}");
}

#[tokio::test]
async fn a_quota_holds_a_run_to_what_it_reserved() {
    let options = EnforcementOptions { cpu: CpuMode::Quota, ..EnforcementOptions::default() };
    let bench = Bench::with(&options, &RunnerOptions::default(), |_| {});
    let busy = "command = [\"/usr/bin/perl\", \"-e\", \"do {{ $n++ for 1..1000 }} until (times)[0] > 0.3\"]\ninvoke = \"once\"";
    let mut spec = spec(busy);
    spec.reservation.cpu = CpuMillis(250);
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    let usage = ending.usage.unwrap();
    assert!(usage.duration_ms >= 900, "300 ms of CPU at a quarter of a core: {usage:?}");
}

#[tokio::test]
async fn a_fork_bomb_is_bounded_and_ends_with_its_run() {
    let options = EnforcementOptions { most_processes: 32, ..EnforcementOptions::default() };
    let bench = Bench::with(&options, &RunnerOptions::default(), |_| {});
    let mut spec = script("bomb() { bomb | bomb & }; bomb; sleep 60");
    spec.limit = Some(Duration::from_secs(1));
    let run = spec.run;
    let ending = bench.run(spec).await;
    assert!(matches!(ending.outcome, Outcome::Timeout | Outcome::TaskError), "{ending:?}");
    assert!(!lives(run) && cgroups(run).is_empty());
}

#[tokio::test]
async fn memory_in_use_is_told_while_a_run_lasts() {
    let bench = Bench::new();
    let mut spec = spec(
        "command = [\"/usr/bin/perl\", \"-e\", \"vec($x, 40 * 1024 * 1024, 8) = 1; sleep 60\"]\ninvoke = \"once\"",
    );
    spec.reservation.memory = Bytes::mib(100);
    let (usage, stop) = (spec.usage.clone(), spec.stop.clone());
    let watching = async {
        until(|| usage.memory() > Bytes::mib(35), "40 MiB to be told").await;
        stop.stop(forecastle_worker::StopReason::Drained);
    };
    let (ending, ()) = tokio::join!(bench.run(spec), watching);
    assert_eq!(ending.outcome, Outcome::Drained, "{ending:?}");
}

#[tokio::test]
async fn without_cgroups_runs_are_measured_and_ended_whole_all_the_same() {
    let options = EnforcementOptions { mechanism: Some(Mechanism::Rusage), ..EnforcementOptions::default() };
    let bench = Bench::with(&options, &RunnerOptions::default(), |_| {});
    let mut spec = spec(
        "command = [\"/usr/bin/perl\", \"-e\", \"vec($x, 100 * 1024 * 1024, 8) = 1; exec '/bin/sh', '-c', 'setsid sleep 300 & exit 0'\"]\ninvoke = \"once\"",
    );
    spec.limit = Some(Duration::from_secs(30));
    let run = spec.run;
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "nothing limits it: {ending:?}");
    let usage = ending.usage.unwrap();
    assert_eq!(usage.source, "rusage");
    let shortfall = enforcer(&options, forecastle_protos::ids::WorkerId::new()).shortfall;
    assert_eq!(shortfall.as_deref(), Some("it is configured so"), "the worker warns of it");
    assert!((Bytes::mib(95)..Bytes::mib(130)).contains(&Bytes(usage.memory_bytes)), "{usage:?}");
    assert!(!lives(run), "the launcher ends what is left behind");
}
