//! Commands: what they are given, what they leave, and how their end is read.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use forecastle_catalogue::ParameterValue;
use forecastle_protos::v1::{self, Outcome};
use forecastle_resources::CpuMillis;
use forecastle_worker::enforcement::EnforcementOptions;
use forecastle_worker::runner::RunnerOptions;
use forecastle_worker::runner::environment::THREAD_POOLS;
use forecastle_worker::{Ending, StopReason};

use crate::bench::{Bench, appears, cgroups, lives, names, output, quote, result, script, spec};

/// Prints its arguments, each in brackets.
const SHOW: &str = r#"printf '[%s]' "$@""#;

#[tokio::test]
async fn names_of_files_are_arguments_whatever_they_hold() {
    let bench = Bench::new();
    let unit = format!(
        "command = [\"/bin/sh\", \"-c\", {}, \"sh\", \"{{name}}\", \"{{input}}\"]\ninvoke = \"each\"\nstdout = \"{{name}}.out\"",
        quote(SHOW)
    );
    let hostile = ["a b", "-rf", "$(touch pwned)", "q'\"`;&|<>*?", "line\nfeed", "sub/d i r/{level}", "\u{1b}é"];
    let mut spec = spec(&unit);
    spec.items = hostile.iter().map(|name| bench.item(name, "x")).collect();
    let inputs: Vec<String> = spec.items.iter().map(|item| item.path.clone()).collect();
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    assert_eq!(ending.files.len(), hostile.len());
    for (name, input) in hostile.iter().zip(inputs) {
        // The same path, but no option.
        let argument = if name.starts_with('-') { format!("./{name}") } else { (*name).to_owned() };
        let input = std::fs::canonicalize(input).unwrap();
        let expected = format!("[{argument}][{}]", input.to_str().unwrap());
        assert_eq!(result(&ending, &format!("{name}.out")), expected, "{name:?}");
    }
}

#[tokio::test]
async fn each_runs_for_every_item_and_once_for_all_of_them() {
    let bench = Bench::new();
    let items = vec![bench.item("a", "1"), bench.item("b", "2")];
    let each = spec("command = [\"/bin/cat\", \"{input}\"]\ninvoke = \"each\"\nstdout = \"{name}\"");
    let ending = bench.run(forecastle_worker::runner::RunSpec { items: items.clone(), ..each }).await;
    assert_eq!(names(&ending), ["a", "b"], "{ending:?}");
    let once = spec("command = [\"/bin/cat\", \"--\", \"{inputs}\"]\ninvoke = \"once\"\nstdout = \"all\"");
    let ending = bench.run(forecastle_worker::runner::RunSpec { items, ..once }).await;
    assert_eq!(result(&ending, "all"), "12");
}

#[tokio::test]
async fn the_first_failure_of_an_item_ends_the_run_and_its_output_is_gone() {
    let bench = Bench::new();
    let test = quote("cat \"$1\"; grep -q good \"$1\" || { echo 'not good' >&2; exit 3; }");
    let unit = format!(
        "command = [\"/bin/sh\", \"-c\", {test}, \"sh\", \"{{input}}\"]\ninvoke = \"each\"\nstdout = \"{{name}}\""
    );
    let mut spec = spec(&unit);
    spec.items = vec![bench.item("1", "good"), bench.item("2", "bad"), bench.item("3", "good")];
    let (shard, run) = (spec.shard, spec.run);
    let ending = bench.run(spec).await;
    assert_eq!((ending.outcome, ending.exit_code), (Outcome::TaskError, 3), "{ending:?}");
    assert_eq!(ending.error, "`/bin/sh` exited with 3 on `2`: not good");
    let folder = bench.folder.path().join(format!("store/{}/0.7/{run}", shard.request));
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["stderr.log"], "what it said stays");
}

#[tokio::test]
async fn outputs_stand_in_the_runs_own_folder_and_are_read_only() {
    let bench = Bench::new();
    let mut spec =
        script("mkdir -p $FORECASTLE_OUTPUT/sub; echo result > $FORECASTLE_OUTPUT/sub/file; echo said; echo cried >&2");
    spec.reservation.cpu = CpuMillis(1500);
    let (shard, run) = (spec.shard, spec.run);
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    assert_eq!(names(&ending), ["sub/file"], "{ending:?}");
    let folder = std::fs::canonicalize(bench.folder.path().join("store")).unwrap();
    let folder = folder.join(format!("{}/0.7/{run}", shard.request));
    assert_eq!(output(&ending), folder.join("output"));
    let mode = std::fs::metadata(folder.join("output/sub/file")).unwrap().permissions().mode();
    assert_eq!(mode & 0o222, 0, "{mode:o}");
    assert_eq!(std::fs::read_to_string(folder.join("stdout.log")).unwrap(), "said\n");
    assert_eq!(std::fs::read_to_string(folder.join("stderr.log")).unwrap(), "cried\n");
    assert_eq!(ending.log_tail, "cried\n");
}

#[tokio::test]
async fn a_command_is_told_what_it_has_and_nothing_of_the_workers_environment() {
    let bench = Bench::new();
    let mut spec = spec(
        "command = [\"/usr/bin/env\"]\ninvoke = \"once\"\nstdout = \"env\"\nenv = { LEVEL = \"9\", LC_ALL = \"C\", JULIA_NUM_THREADS = \"8\" }",
    );
    spec.reservation.cpu = CpuMillis(1500);
    spec.attempt = 3;
    spec.deadline_unix_ms = Some(1_800_000_000_000);
    let expected = [
        format!("FORECASTLE_RUN_ID={}", spec.run),
        format!("FORECASTLE_SHARD_ID={}", spec.shard),
        "FORECASTLE_ATTEMPT=3".to_owned(),
        "FORECASTLE_CPU_MILLIS=1500".to_owned(),
        format!("FORECASTLE_MEMORY_BYTES={}", 64 << 20),
        format!("FORECASTLE_REQUEST_ID={}", spec.shard.request),
        "FORECASTLE_REQUEST_TYPE=t".to_owned(),
        "FORECASTLE_UNIT=u".to_owned(),
        "FORECASTLE_TENANT=tests".to_owned(),
        "FORECASTLE_IO_BYTES_PER_SECOND=0".to_owned(),
        "FORECASTLE_SCRATCH_BYTES=0".to_owned(),
        "FORECASTLE_DURATION_MS=1000".to_owned(),
        "FORECASTLE_TIME_LIMIT_MS=60000".to_owned(),
        "FORECASTLE_DEADLINE_UNIX_MS=1800000000000".to_owned(),
        "JULIA_NUM_THREADS=8".to_owned(),
        "LEVEL=9".to_owned(),
        "LC_ALL=C".to_owned(),
        "PATH=/usr/local/bin:/usr/bin:/bin".to_owned(),
    ];
    let ending = bench.run(spec).await;
    let text = result(&ending, "env");
    let lines: Vec<&str> = text.lines().collect();
    for line in &expected {
        assert!(lines.contains(&line.as_str()), "{line} is not in {text}");
    }
    for pool in THREAD_POOLS.iter().filter(|name| **name != "JULIA_NUM_THREADS") {
        assert!(lines.contains(&format!("{pool}=2").as_str()), "the cores rounded up: {pool} in {text}");
    }
    assert!(lines.iter().any(|line| line.starts_with("FORECASTLE_ALLOCATION_FILE=/")), "{text}");
    assert!(lines.iter().any(|line| line.starts_with("HOME=") && line.ends_with("/work")), "{text}");
    assert!(!text.contains("CARGO"), "{text}");
}

#[tokio::test]
async fn parameters_and_upstream_results_reach_a_command() {
    let bench = Bench::new();
    let first = bench.run(script("echo one > $FORECASTLE_OUTPUT/one")).await;
    let mut spec = spec("command = [\"/bin/cat\", \"{upstream}\"]\ninvoke = \"once\"\nstdout = \"upstream\"");
    spec.parameters.insert("level".to_owned(), ParameterValue::Integer(9));
    spec.upstream = vec![v1::ShardResult {
        shard_id: "r.0.0".to_owned(),
        stage: "work".to_owned(),
        unit: "checksum".to_owned(),
        run_id: "x".to_owned(),
        attempt: 1,
        output_uri: first.output_uri.clone(),
        files: first.files.clone(),
        inline_json: "{\"n\":1}".to_owned(),
    }];
    let mut elsewhere = spec.clone();
    let ending = bench.run(spec).await;
    let value: serde_json::Value = serde_json::from_str(&result(&ending, "upstream")).unwrap();
    assert_eq!(value[0]["folder"], output(&first).to_str().unwrap());
    assert_eq!(value[0]["files"][0]["path"], "one");
    assert_eq!(value[0]["result"]["n"], 1);

    elsewhere.run = forecastle_protos::ids::RunId::new();
    elsewhere.upstream[0].output_uri = "file:///etc".to_owned();
    let ending = bench.run(elsewhere).await;
    assert_eq!(ending.outcome, Outcome::PermanentError, "{ending:?}");
    assert!(ending.error.contains("/etc"), "{}", ending.error);
}

async fn exits_with(bench: &Bench, code: i32) -> Ending {
    let unit = format!(
        "command = [\"/bin/sh\", \"-c\", \"exit {code}\"]\ninvoke = \"once\"\nsuccessful_exit_codes = [0, 4]\nretryable_exit_codes = [75]"
    );
    bench.run(spec(&unit)).await
}

#[tokio::test]
async fn exit_codes_and_signals_are_read_as_the_catalogue_says() {
    let bench = Bench::new();
    for (code, outcome) in [
        (0, Outcome::Succeeded),
        (4, Outcome::Succeeded),
        (75, Outcome::TaskError),
        (1, Outcome::PermanentError),
        (255, Outcome::PermanentError),
    ] {
        let ending = exits_with(&bench, code).await;
        assert_eq!((ending.outcome, ending.exit_code, ending.signal), (outcome, code, 0), "{ending:?}");
    }
    let ending = bench.run(script("kill -SEGV $$")).await;
    assert_eq!((ending.outcome, ending.exit_code, ending.signal), (Outcome::TaskError, -1, 11), "{ending:?}");
}

#[tokio::test]
async fn a_program_that_is_not_there_says_what_to_install() {
    let bench = Bench::new();
    let ending = bench.run(spec("command = [\"/usr/bin/no-such-program\"]\ninvoke = \"once\"")).await;
    assert_eq!(ending.outcome, Outcome::PermanentError, "{ending:?}");
    assert!(ending.error.contains("install the package that provides `no-such-program`"), "{}", ending.error);
    let ending = bench.run(spec("command = [\"/etc/passwd\"]\ninvoke = \"once\"")).await;
    assert_eq!(ending.outcome, Outcome::PermanentError, "{ending:?}");
    assert!(ending.error.contains("may not be executed"), "{}", ending.error);
}

/// A script that has made a daemon with a session of its own when the file appears, and then sleeps.
fn daemon(bench: &Bench) -> (forecastle_worker::runner::RunSpec, std::path::PathBuf) {
    let ready = bench.folder.path().join("ready");
    let text = format!("(setsid sh -c 'touch {}; sleep 300' > /dev/null 2>&1 &) ; sleep 300", ready.display());
    (script(&text), ready)
}

#[tokio::test]
async fn a_timeout_ends_the_whole_tree() {
    let bench = Bench::new();
    let (mut spec, ready) = daemon(&bench);
    spec.limit = Some(Duration::from_secs(2));
    let run = spec.run;
    let started = Instant::now();
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Timeout, "{ending:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(ready.exists(), "the daemon had started");
    assert!(!lives(run) && cgroups(run).is_empty());
}

#[tokio::test]
async fn a_stopped_run_ends_the_whole_tree_and_says_why() {
    for (reason, outcome) in [
        (StopReason::Cancelled("request-cancelled".to_owned()), Outcome::Cancelled),
        (StopReason::Preempted, Outcome::Preempted),
        (StopReason::Drained, Outcome::Drained),
    ] {
        let bench = Bench::new();
        let (spec, ready) = daemon(&bench);
        let (run, stop) = (spec.run, spec.stop.clone());
        let stopping = async {
            appears(&ready).await;
            stop.stop(reason);
        };
        let (ending, ()) = tokio::join!(bench.run(spec), stopping);
        assert_eq!(ending.outcome, outcome, "{ending:?}");
        assert!(!lives(run) && cgroups(run).is_empty());
    }
}

#[tokio::test]
async fn a_daemon_does_not_outlive_its_command() {
    let bench = Bench::new();
    let ready = bench.folder.path().join("ready");
    let text = format!(
        "(setsid sh -c 'touch {0}; exec sleep 300' &) ; while [ ! -e {0} ]; do sleep 0.01; done",
        ready.display()
    );
    let spec = script(&text);
    let run = spec.run;
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    assert!(!lives(run) && cgroups(run).is_empty());
}

#[tokio::test]
async fn a_run_whose_future_is_dropped_leaves_nothing() {
    let bench = Bench::new();
    let (spec, ready) = daemon(&bench);
    let run = spec.run;
    let runner = bench.runner.clone();
    let task = tokio::spawn(async move { runner.run(spec).await });
    appears(&ready).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    crate::bench::until(|| !lives(run) && cgroups(run).is_empty(), "the run to end").await;
}

#[tokio::test]
async fn what_is_said_is_kept_as_text_within_bounds() {
    let options = RunnerOptions { log_limit: forecastle_resources::Bytes(1000), ..RunnerOptions::default() };
    let bench = Bench::with(&EnforcementOptions::default(), &options, |_| {});
    let spec = script("perl -e 'print STDERR chr(255) x 100000, \"the end\"'");
    let (shard, run) = (spec.shard, spec.run);
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
    assert!(ending.log_tail.len() <= 16 << 10 && ending.log_tail.ends_with("the end"), "{}", ending.log_tail.len());
    let log = bench.folder.path().join(format!("store/{}/0.7/{run}/stderr.log", shard.request));
    assert!(std::fs::metadata(log).unwrap().len() < 1100);
}

#[tokio::test]
async fn inputs_outside_the_roots_or_gone_fail_for_good_and_are_named() {
    let bench = Bench::new();
    let cat = || spec("command = [\"/bin/cat\", \"{input}\"]\ninvoke = \"each\"\nstdout = \"{name}\"");
    let item = bench.item("gone", "x");
    std::fs::remove_file(&item.path).unwrap();
    let mut vanished = cat();
    vanished.items = vec![bench.item("there", "x"), item.clone()];
    let ending = bench.run(vanished).await;
    assert_eq!(ending.outcome, Outcome::PermanentError, "{ending:?}");
    assert_eq!(ending.error, format!("the input {} no longer exists", item.path));

    let link = bench.folder.path().join("input/link");
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    for path in ["/etc/passwd", link.to_str().unwrap(), "relative", "s3://bucket/key"] {
        let mut outside = cat();
        outside.items = vec![v1::Item { path: path.to_owned(), name: "x".to_owned(), bytes: 1 }];
        let ending = bench.run(outside).await;
        assert_eq!(ending.outcome, Outcome::PermanentError, "{path}: {ending:?}");
        assert!(ending.error.contains(path), "{}", ending.error);
    }
    for name in ["../x", "/x", "", "a/../../x"] {
        let mut named = cat();
        named.items = vec![v1::Item { name: name.to_owned(), ..bench.item("there", "x") }];
        let ending = bench.run(named).await;
        assert_eq!(ending.outcome, Outcome::PermanentError, "{name}: {ending:?}");
    }
}

#[tokio::test]
async fn a_command_finds_the_trace_context_of_its_request() {
    let bench = Bench::new();
    let context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (given, told) in [(Some(context), context), (None, "none")] {
        let spec = script("printf %s \"${TRACEPARENT-none}\" > \"$FORECASTLE_OUTPUT/context\"");
        let ending =
            bench.run(forecastle_worker::runner::RunSpec { traceparent: given.map(str::to_owned), ..spec }).await;
        assert_eq!(result(&ending, "context"), told);
    }
}
