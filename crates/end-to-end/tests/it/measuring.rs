//! Reserving, enforcing, measuring and learning.

use std::time::Duration;

use forecastle_end_to_end::stack::Stack;
use forecastle_end_to_end::system::System;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::catalogue;

/// Perl is on every Debian machine; this holds `$1` MiB for a moment.
fn holds(mebibytes: u32, reserve: &str) -> String {
    catalogue(&format!(
        r#"
command = ["/usr/bin/perl", "-e", "vec($x, {mebibytes} * 1048576, 8) = 1; select(undef, undef, undef, 0.3); print length($x)", "--", "{{input}}"]
stdout = "{{name}}.txt"
reserve = {{ cpu = "500m", memory = "{reserve}", duration = "1s" }}
minimum = {{ memory = "4MiB" }}
maximum = {{ memory = "1GiB" }}
"#
    ))
}

fn bytes(value: &Value) -> f64 {
    // proto3's JSON writes 64-bit integers as text.
    value.as_str().and_then(|text| text.parse().ok()).or_else(|| value.as_f64()).unwrap_or(0.0)
}

/// Reserved memory in MiB, used memory in MiB and outcome of each run of a request's first shard.
async fn runs(system: &System, request: &str) -> Vec<(f64, f64, String)> {
    let explained = system.get(&format!("/v1/shards/{request}.0.0")).await.unwrap();
    let runs = explained["runs"].as_array().cloned().unwrap_or_default();
    runs.iter()
        .map(|run| {
            let completed = &run["completed"];
            (
                bytes(&completed["reservation"]["vector"]["memoryBytes"]) / 1_048_576.0,
                bytes(&completed["usage"]["memoryBytes"]) / 1_048_576.0,
                completed["outcome"].as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect()
}

async fn run_once(system: &mut System, key: &str) -> Vec<(f64, f64, String)> {
    let request = system.submit("work", key).await.unwrap();
    let status = system.finished(&request, Duration::from_mins(1)).await.unwrap();
    assert_eq!(status["state"], "REQUEST_STATE_SUCCEEDED", "{status}");
    runs(system, &request).await
}

async fn system(catalogue: &str) -> System {
    system_with(catalogue, &[]).await
}

async fn system_with(catalogue: &str, worker: &[(&str, &str)]) -> System {
    let mut system = System::new(Stack::shared().unwrap(), catalogue).unwrap();
    std::fs::write(system.input().join("a"), "a").unwrap();
    system.start_frontend(&[], &[]).await.unwrap();
    system.start_worker("cpu=1,memory=2GiB", worker).await.unwrap();
    system
}

#[tokio::test]
async fn a_command_that_needs_more_than_is_reserved_is_killed_and_gets_more() {
    // With adjustment its lease might grow in time.
    let adjustment = ("FORECASTLE__ADJUSTMENT__ENABLED", "false");
    let mut system = system_with(&holds(200, "64MiB"), &[adjustment]).await;
    let runs = run_once(&mut system, "k").await;
    assert!(runs.len() >= 2, "{runs:?}");
    let (last, killed) = runs.split_last().unwrap();
    assert!((63.0..65.0).contains(&killed[0].0), "{runs:?}");
    assert!(killed.iter().all(|run| run.2 == "OUTCOME_OUT_OF_MEMORY"), "{runs:?}");
    assert!(runs.is_sorted_by(|a, b| a.0 < b.0), "each attempt reserves more: {runs:?}");
    assert_eq!(last.2, "OUTCOME_SUCCEEDED");
    assert!((190.0..260.0).contains(&last.1), "{runs:?}");
}

#[tokio::test]
async fn a_command_that_rises_above_what_is_reserved_grows_and_succeeds_at_the_first_attempt() {
    let rises = r#"
command = ["/usr/bin/perl", "-e", "for (1..50) {{ push @x, chr(65) x 4194304; select undef, undef, undef, 0.02 }}", "--", "{input}"]
stdout = "{name}.txt"
reserve = { cpu = "500m", memory = "64MiB", duration = "1s" }
minimum = { memory = "4MiB" }
maximum = { memory = "1GiB" }
"#;
    let mut system = system(&catalogue(rises)).await;
    let request = system.submit("work", "k").await.unwrap();
    let status = system.finished(&request, Duration::from_mins(1)).await.unwrap();
    assert_eq!(status["state"], "REQUEST_STATE_SUCCEEDED", "{status}");
    let runs = runs(&system, &request).await;
    assert!(runs.len() == 1 && runs[0].2 == "OUTCOME_SUCCEEDED" && runs[0].1 > 190.0, "{runs:?}");
    let explained = system.get(&format!("/v1/shards/{request}.0.0")).await.unwrap();
    let changes = explained["runs"][0]["completed"]["adjustments"].as_array().unwrap().clone();
    assert!(changes.iter().any(|change| change["change"] == "grow"), "{changes:?}");
    let count = format!("SELECT countIf(change = 'grow') FROM {}.v_adjustments", system.database());
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        // The view comes with the first batch.
        let rows = system.stack().run(&["clickhouse-query", &count]).unwrap_or_default();
        if rows.trim().parse::<usize>().is_ok_and(|rows| rows > 0) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "ClickHouse has {rows}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_command_that_needs_little_reserves_little_the_second_time() {
    let mut system = system(&holds(50, "1GiB")).await;
    let first = run_once(&mut system, "1").await;
    assert!((1023.0..1025.0).contains(&first[0].0) && (45.0..70.0).contains(&first[0].1), "{first:?}");
    let second = run_once(&mut system, "2").await;
    assert!(second[0].0 < 100.0 && second[0].2 == "OUTCOME_SUCCEEDED", "{second:?}");
    // What was learnt is learnt again from the ledger.
    system.frontend.as_mut().unwrap().kill().unwrap();
    system.start_frontend(&[], &[]).await.unwrap();
    let third = run_once(&mut system, "3").await;
    assert!(third[0].0 < 100.0 && third[0].2 == "OUTCOME_SUCCEEDED", "{third:?}");
}

#[tokio::test]
async fn reading_a_large_file_is_not_memory() {
    let definition = r#"
command = ["/bin/cat", "{input}"]
stdout = "{name}.copy"
reserve = { cpu = "500m", memory = "64MiB", duration = "1s" }
minimum = { memory = "4MiB" }
"#;
    let mut system = system(&catalogue(definition)).await;
    std::fs::write(system.input().join("a"), vec![7u8; 200 << 20]).unwrap();
    let first = run_once(&mut system, "1").await;
    assert!(first.len() == 1 && first[0].1 < 20.0, "{first:?}");
    let second = run_once(&mut system, "2").await;
    assert!(second[0].0 < 20.0 && second[0].2 == "OUTCOME_SUCCEEDED", "{second:?}");
}

/// Waits until history has so many runs of a request, and as many that won.
async fn landed(system: &System, request: &str, runs: u32) {
    let count =
        format!("SELECT count(), countIf(winning) FROM {}.v_runs WHERE request_id = '{request}'", system.database());
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        // The table comes with the first batch.
        let rows = system.stack().run(&["clickhouse-query", &count]).unwrap_or_default();
        if rows.split_whitespace().collect::<Vec<_>>() == [runs.to_string(), runs.to_string()] {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "ClickHouse has {rows}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_ran_lands_in_clickhouse_once() {
    let mut system = system(&holds(10, "64MiB")).await;
    let request = system.submit("work", "k").await.unwrap();
    system.finished(&request, Duration::from_mins(1)).await.unwrap();
    landed(&system, &request, 2).await;
}

/// Forwards to `upstream` until the set is dropped.
fn forward(listener: TcpListener, upstream: String) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let upstream = upstream.clone();
            connections.spawn(async move {
                let Ok(mut server) = TcpStream::connect(upstream).await else { return };
                // Either side may end it.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    tasks
}

#[tokio::test]
async fn a_clickhouse_that_is_away_delays_no_work_and_has_everything_once_later() {
    let stack = Stack::shared().unwrap();
    let upstream = stack.variable("FORECASTLE_CLICKHOUSE_URL").unwrap().replace("http://", "");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut system = System::new(stack, &holds(10, "64MiB")).unwrap();
    std::fs::write(system.input().join("a"), "a").unwrap();
    let url = format!("history.server.url=http://{address}");
    system.start_frontend(&[], &[&url]).await.unwrap();
    system.start_worker("cpu=1,memory=2GiB", &[]).await.unwrap();
    let mut requests = Vec::new();
    // From the beginning, and again after it was there.
    for key in ["1", "2"] {
        let request = system.submit("work", key).await.unwrap();
        let status = system.finished(&request, Duration::from_mins(1)).await.unwrap();
        assert_eq!(status["state"], "REQUEST_STATE_SUCCEEDED", "{status}");
        requests.push(request);
        let there = forward(TcpListener::bind(address).await.unwrap(), upstream.clone());
        for request in &requests {
            landed(&system, request, 2).await;
        }
        drop(there);
    }
}
