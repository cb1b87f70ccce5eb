//! The time limit of a unit, from the catalogue to the kernel and back to the ledger.

use std::time::Duration;

use forecastle_end_to_end::stack::Stack;
use forecastle_end_to_end::system::System;
use serde_json::Value;

use crate::catalogue;

/// Perl is on every Debian machine.
fn sleeps(seconds: &str, timeout: &str, timeouts: u32) -> String {
    catalogue(&format!(
        r#"
command = ["/usr/bin/perl", "-e", "select(undef, undef, undef, {seconds})", "--", "{{input}}"]
stdout = "{{name}}.txt"
reserve = {{ cpu = "500m", memory = "32MiB", duration = "100ms" }}
timeout = "{timeout}"
retry = {{ timeouts = {timeouts}, backoff = "10ms" }}
"#
    ))
}

/// The status that the request ended with, and the outcome of each run of its first shard.
async fn run(catalogue: &str) -> (Value, Vec<String>) {
    let mut system = System::new(Stack::shared().unwrap(), catalogue).unwrap();
    std::fs::write(system.input().join("a"), "a").unwrap();
    system.start_frontend(&[], &[]).await.unwrap();
    system.start_worker("cpu=1,memory=1GiB", &[]).await.unwrap();
    let request = system.submit("work", "k").await.unwrap();
    let status = system.finished(&request, Duration::from_mins(1)).await.unwrap();
    let explained = system.get(&format!("/v1/shards/{request}.0.0")).await.unwrap();
    let outcome = |run: &Value| run["completed"]["outcome"].as_str().unwrap_or_default().to_owned();
    (status, explained["runs"].as_array().unwrap().iter().map(outcome).collect())
}

#[tokio::test]
async fn a_run_over_its_time_limit_is_stopped_and_the_next_may_take_twice_as_long() {
    let (status, runs) = run(&sleeps("1.2", "1s", 3)).await;
    assert_eq!(status["state"], "REQUEST_STATE_SUCCEEDED", "{status}");
    assert_eq!(runs.first().map(String::as_str), Some("OUTCOME_TIMEOUT"), "{runs:?}");
    assert_eq!(runs.last().map(String::as_str), Some("OUTCOME_SUCCEEDED"), "{runs:?}");
}

#[tokio::test]
async fn one_that_never_ends_fails_the_request_once_its_budget_is_used_up() {
    let (status, runs) = run(&sleeps("60", "200ms", 1)).await;
    assert_eq!(status["state"], "REQUEST_STATE_FAILED", "{status}");
    assert_eq!(status["error"]["code"], "timed-out", "{status}");
    assert_eq!(runs, ["OUTCOME_TIMEOUT", "OUTCOME_TIMEOUT"]);
}
