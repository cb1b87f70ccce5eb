//! Leaving: what runs ends or is handed on, and nothing is lost.

use std::time::Duration;

use forecastle_protos::v1::Outcome;
use forecastle_resources::{Priority, SizeClass};
use forecastle_worker::LeftUnconfirmed;
use tokio::time::Instant;

use crate::frontend_side::{FrontendSide, RunningWorker, Spec, queue};
use crate::scripted::Scripted;

#[tokio::test(start_paused = true)]
async fn a_drain_hands_back_what_is_in_hand_and_lets_runs_end_within_the_grace() {
    let mut side = FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start_with(&side, executor.clone(), |options| {
        options.drain.grace = Duration::from_mins(2).into();
    })
    .await;
    // Said to end soon, so that the next offer is worth keeping.
    let shard = side.publish(&Spec::new("minute", 1000, 1)).await;
    side.claim().await;
    side.publish(&Spec::new("second", 500, 1)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let waiting = queue(Priority::Standard, SizeClass::S);
    assert_eq!(side.ready(&waiting).await, 0, "in hand");
    worker.shutdown.request_drain();
    let report = side.report_where(|report| report.draining).await;
    assert!(!report.leaving && report.leases.len() == 1);
    side.until_ready(&waiting, 1).await;
    assert_eq!(side.outcome_of(shard).await, Outcome::Succeeded);
    worker.task.await.unwrap().unwrap();
    let last = side.report_where(|report| report.leaving).await;
    assert_eq!(last.leases, []);
    assert_eq!(side.ready(&waiting).await, 1);
    assert_eq!(executor.starts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_outlasts_the_grace_is_stopped_and_reported_as_drained() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    let shard = side.publish(&Spec::new("hour", 1000, 60)).await;
    side.claim().await;
    let asked = Instant::now();
    worker.shutdown.request_drain();
    assert_eq!(side.outcome_of(shard).await, Outcome::Drained);
    assert_eq!(asked.elapsed().as_secs(), 30, "the grace");
    worker.task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn hurrying_leaves_no_grace() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    let shard = side.publish(&Spec::new("hour", 1000, 60)).await;
    side.claim().await;
    let asked = Instant::now();
    worker.shutdown.request_drain();
    tokio::time::sleep(Duration::from_secs(3)).await;
    worker.shutdown.request_hurry();
    assert_eq!(side.outcome_of(shard).await, Outcome::Drained);
    assert_eq!(asked.elapsed().as_secs(), 3);
    worker.task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn completions_are_published_until_confirmed_before_the_worker_leaves() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    let shard = side.publish(&Spec::new("second", 1000, 1)).await;
    let run = side.claim().await.run_id;
    // Lost: the completion's confirm, thrice (load reports lose theirs too, which nobody waits for).
    worker.broker.lose_confirms(6);
    worker.shutdown.request_drain();
    let (first, _) = side.completion().await;
    let (second, completed) = side.completion().await;
    assert_eq!((&first.run_id, &second.run_id), (&run, &run), "the same event again");
    assert_eq!((second.shard_id, completed.outcome()), (shard.to_string(), Outcome::Succeeded));
    worker.task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_stays_away_does_not_keep_a_worker_for_ever() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    side.publish(&Spec::new("hour", 1000, 1)).await;
    side.claim().await;
    worker.broker.disconnect();
    let asked = Instant::now();
    worker.shutdown.request_drain();
    let left = worker.task.await.unwrap().unwrap_err();
    assert_eq!(left.downcast_ref(), Some(&LeftUnconfirmed { runs: 1 }), "its exit status says so: {left}");
    assert!(asked.elapsed() < Duration::from_mins(1), "{:?}", asked.elapsed());
}
