//! Work that is expected finds its processes ready: from what the frontend releases to what a worker starts.

use std::time::{Duration, Instant};

use forecastle_end_to_end::faults::inspection;
use forecastle_end_to_end::stack::Stack;
use forecastle_end_to_end::system::{StartedWorker, Surroundings, System};

use crate::{catalogue, write_files};

/// Waits until a metric of a worker, with these labels, is at least so much.
async fn reaches(system: &System, worker: &StartedWorker, metric: &str, least: f64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let metrics = system.metrics_of(worker).await.unwrap();
        let value = metrics.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse::<f64>().ok());
        if value.is_some_and(|value| value >= least) {
            return;
        }
        assert!(Instant::now() < deadline, "{metric} is {value:?} and not {least}:\n{metrics}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

const WARM_COMMANDS: &str = "forecastle_worker_starts_total{kind=\"command\",start=\"warm\"}";
const WARM_TASKS: &str = "forecastle_worker_starts_total{kind=\"task\",start=\"warm\"}";

#[tokio::test]
async fn what_follows_a_first_request_starts_warm_and_a_drained_worker_leaves_nothing() {
    let unit = "command = [\"/bin/cat\", \"{input}\"]\nstdout = \"{name}.copy\"\n\
                reserve = { cpu = \"100m\", memory = \"32MiB\", duration = \"1s\" }";
    let catalogue = catalogue(unit).replace("task = ", "isolated = true\ntask = ");
    let mut system = System::new(Stack::shared().unwrap(), &catalogue).unwrap();
    write_files(&system.input(), 6);
    system.start_frontend(&[], &[]).await.unwrap();
    let mut worker = system.launch_worker_in("cpu=2,memory=1GiB", Surroundings::default()).unwrap();
    system.worker_ready(&mut worker).await.unwrap();
    for key in ["first", "second"] {
        let request = system.submit("work", key).await.unwrap();
        let status = system.finished(&request, Duration::from_mins(1)).await.unwrap();
        assert_eq!(status["state"], "REQUEST_STATE_SUCCEEDED", "{status}");
        // Six commands and the isolated manifest are expected again: not all at once, for that never happened.
        reaches(&system, &worker, "forecastle_worker_warm_slots", 4.0).await;
    }
    reaches(&system, &worker, WARM_COMMANDS, 1.0).await;
    reaches(&system, &worker, WARM_TASKS, 1.0).await;

    let status = worker.program.terminate(Duration::from_secs(30)).unwrap();
    assert_eq!(status.code(), Some(0));
    let mut frontend = system.frontend.take().unwrap();
    frontend.terminate(Duration::from_secs(30)).unwrap();
    let mut left = Vec::new();
    assert_eq!(inspection::machine(&system, &mut left).unwrap(), 1);
    assert!(left.is_empty(), "{left:?}");
}
