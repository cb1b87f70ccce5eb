//! What failed for good is found, mended and replayed, with the command line that an operator uses.

use std::time::Duration;

use forecastle_end_to_end::program;
use forecastle_end_to_end::stack::Stack;
use forecastle_end_to_end::system::System;
use serde_json::Value;
use tokio::process::Command;

use crate::{catalogue, write_files};

/// `forecastle --json dead …`, which must succeed.
async fn dead(system: &System, arguments: &[&str]) -> Value {
    let output = Command::new(program::path("forecastle").unwrap())
        .args(["--json", "--url", &system.api_url(), "--token-file"])
        .arg(system.token_file())
        .arg("dead")
        .args(arguments)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn a_request_that_failed_is_mended_and_replayed_and_what_had_succeeded_is_not_run_again() {
    // One at a time and the largest first, so that the others have succeeded when the smallest fails.
    let unit = r#"
command = ["/bin/cat", "{input}"]
stdout = "{name}.copy"
reserve = { cpu = "1", memory = "32MiB", duration = "1s" }
minimum = { cpu = "1" }
retry = { errors = 1, backoff = "100ms" }
"#;
    let mut system = System::new(Stack::shared().unwrap(), &catalogue(unit)).unwrap();
    write_files(&system.input(), 3);
    system.start_frontend(&[], &[]).await.unwrap();
    let request = system.submit("work", "k").await.unwrap();
    let planned = async {
        while system.get(&format!("/v1/requests/{request}")).await.unwrap()["state"] != "REQUEST_STATE_RUNNING" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), planned).await.unwrap();
    let (there, away) = (system.input().join("file-0000"), system.input().join("../away"));
    std::fs::rename(&there, &away).unwrap();
    system.start_worker("cpu=1,memory=1GiB", &[]).await.unwrap();
    let failed = system.finished(&request, Duration::from_secs(30)).await.unwrap();
    assert_eq!(failed["state"], "REQUEST_STATE_FAILED", "{failed}");

    let found = dead(&system, &["list", "--type", "work"]).await;
    assert_eq!(found["dead"].as_array().unwrap().len(), 1, "{found}");
    let shard = found["dead"][0]["shardId"].as_str().unwrap();
    let shown = dead(&system, &["show", shard]).await;
    assert!(shown["reason"]["message"].as_str().unwrap().contains("file-0000"), "{shown}");
    let attempts = shown["attempts"].as_u64().unwrap();

    std::fs::rename(&away, &there).unwrap();
    let replayed = dead(&system, &["replay", shard]).await;
    assert_eq!(replayed[0]["attempt"], attempts + 1, "{replayed}");
    let ended = system.finished(&request, Duration::from_secs(30)).await.unwrap();
    assert_eq!(ended["state"], "REQUEST_STATE_SUCCEEDED", "{ended}");
    assert!(system.manifest(&request).unwrap().contains("file-0000"));
    let list = dead(&system, &["list"]).await;
    assert_eq!(list["dead"], Value::Null, "{list}");
    for index in 0..2 {
        let explained = system.get(&format!("/v1/shards/{request}.0.{index}")).await.unwrap();
        assert_eq!(explained["runs"].as_array().unwrap().len(), 1, "it had succeeded before: {explained}");
    }
}
