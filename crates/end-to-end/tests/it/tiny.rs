//! Tiny shards on the real broker: several unsettled at a time, acknowledged together at their end.

use std::time::Duration;

use forecastle_end_to_end::stack::Stack;
use forecastle_end_to_end::system::System;

use crate::{catalogue, write_files};

const SHARDS: usize = 400;

#[tokio::test]
async fn hundreds_of_them_run_once_each_and_cost_no_channel() {
    let unit = "task = \"forecastle.noop\"\nreserve = { cpu = \"10m\", memory = \"4MiB\", duration = \"10ms\" }";
    let mut system = System::new(Stack::shared().unwrap(), &catalogue(unit)).unwrap();
    write_files(&system.input(), SHARDS);
    system.start_frontend(&[], &[]).await.unwrap();
    for _ in 0..2 {
        system.start_worker("cpu=1,memory=1GiB", &[]).await.unwrap();
    }
    let request = system.submit("work", "k").await.unwrap();
    let status = system.finished(&request, Duration::from_mins(2)).await.unwrap();
    assert_eq!(status["state"], "REQUEST_STATE_SUCCEEDED", "{status}");
    for number in [0, SHARDS / 2, SHARDS - 1] {
        let explained = system.get(&format!("/v1/shards/{request}.0.{number}")).await.unwrap();
        assert_eq!((explained["sizeClass"].as_str(), explained["attempt"].as_u64()), (Some("tiny"), Some(1)));
        assert_eq!(explained["runs"].as_array().unwrap().len(), 1, "{explained}");
    }
    for number in 1..=2 {
        let log = std::fs::read_to_string(system.folder().join(format!("worker-{number}.log"))).unwrap();
        assert!(!log.contains("lost its channel"), "the broker refused an acknowledgement:\n{log}");
    }
}
