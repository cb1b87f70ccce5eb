//! Shares of a worker that runs, changed by an operator and by its configuration.

use std::time::Duration;

use forecastle_end_to_end::program;
use forecastle_end_to_end::stack::Stack;
use forecastle_end_to_end::system::System;
use serde_json::Value;
use tokio::process::Command;

use crate::catalogue;

/// `forecastle shares …`, with its exit status, and standard output and error.
async fn shares(system: &System, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(program::path("forecastle").unwrap())
        .args(["--url", &system.api_url(), "--token-file"])
        .arg(system.token_file())
        .arg("shares")
        .args(arguments)
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (output.status.code().unwrap(), said)
}

/// Millicores guaranteed to a priority by the worker's last report.
async fn guaranteed(system: &System, priority: &str) -> Option<Value> {
    let fleet = system.get("/v1/fleet").await.unwrap();
    let shares = fleet["workers"][0]["report"]["shares"].as_array()?.clone();
    let share = shares.into_iter().find(|share| share["priority"] == priority)?;
    Some(share["guaranteed"]["cpuMillis"].clone())
}

async fn until_guaranteed(system: &System, priority: &str, wanted: Value) {
    let reported = async {
        while guaranteed(system, priority).await != Some(wanted.clone()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reported).await.expect("the worker reports its shares");
}

#[tokio::test]
async fn an_operator_changes_them_and_a_reload_brings_back_what_is_configured() {
    let unit = "command = [\"/bin/cat\", \"{input}\"]\nstdout = \"{name}.copy\"";
    let mut system = System::new(Stack::shared().unwrap(), &catalogue(unit)).unwrap();
    system.start_frontend(&[], &[]).await.unwrap();
    let configured = [("FORECASTLE__SHARES__STANDARD__GUARANTEED__CPU", "500m")];
    system.start_worker("cpu=2,memory=1GiB", &configured).await.unwrap();
    until_guaranteed(&system, "standard", 500.into()).await;

    let (status, said) = shares(&system, &["set", "urgent", "--guaranteed", "cpu=1,memory=256MiB"]).await;
    assert!(status == 0 && said.contains("1 worker has the shares"), "{said}");
    assert_eq!(guaranteed(&system, "urgent").await, Some(1000.into()), "told once the worker has said so");
    assert_eq!(guaranteed(&system, "standard").await, Some(500.into()), "others keep theirs");
    let (status, said) = shares(&system, &["list"]).await;
    assert!(status == 0 && said.contains("1 core, 256 MiB"), "{said}");

    let (status, said) = shares(&system, &["set", "batch", "--guaranteed", "cpu=1,memory=1MiB"]).await;
    assert!(status == 4 && said.contains("more than the capacity"), "{said}");
    let (status, said) = shares(&system, &["set", "batch", "--worker", "nobody"]).await;
    assert!(status == 2 && said.contains("no live worker is called nobody"), "{said}");

    system.workers[0].reload().unwrap();
    until_guaranteed(&system, "urgent", Value::Null).await;
    assert_eq!(guaranteed(&system, "standard").await, Some(500.into()));
    let ended = system.workers[0].terminate(Duration::from_secs(30)).unwrap();
    assert_eq!(ended.code(), Some(0), "a reload is no signal to end");
}
