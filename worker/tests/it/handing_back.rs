//! Offers that cannot be claimed go back, so that no worker hides work from an idle one.

use std::time::Duration;

use forecastle_protos::v1::Outcome;
use forecastle_resources::{Bytes, Priority, SizeClass};
use tokio::time::Instant;

use crate::frontend_side::{FrontendSide, RunningWorker, Spec, queue};
use crate::scripted::Scripted;

#[tokio::test(start_paused = true)]
async fn an_offer_is_handed_back_after_the_hold_and_an_idle_worker_takes_it() {
    let mut side = FrontendSide::new().await;
    let (busy, idle) = (Scripted::new(), Scripted::new());
    let first = RunningWorker::start(&side, busy.clone()).await;
    // Said to end soon, so that the offer is worth keeping.
    side.publish(&Spec::new("hour", 1000, 1)).await;
    side.claim().await;
    let shard = side.publish(&Spec::new("second", 500, 1)).await;
    let offered = Instant::now();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(side.ready(&queue(Priority::Standard, SizeClass::S)).await, 0, "the busy one has it in hand");
    let second = RunningWorker::start(&side, idle.clone()).await;
    assert_eq!(side.outcome_of(shard).await, Outcome::Succeeded);
    let starts = idle.starts();
    assert_eq!((starts.len(), starts[0].0), (1, shard));
    let after = starts[0].1 - offered;
    assert!(after >= Duration::from_millis(1990) && after <= Duration::from_millis(2100), "{after:?}");
    first.shutdown.request_hurry();
    first.end().await;
    second.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_will_not_start_within_the_hold_is_handed_back_at_once() {
    let mut side = FrontendSide::new().await;
    let (busy, idle) = (Scripted::new(), Scripted::new());
    let first = RunningWorker::start(&side, busy.clone()).await;
    side.publish(&Spec::new("hour", 1000, 3600)).await;
    side.claim().await;
    let shards = [side.publish(&Spec::new("second", 500, 1)).await, side.publish(&Spec::new("second", 500, 1)).await];
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(side.ready(&queue(Priority::Standard, SizeClass::S)).await, 2, "none is in hand");
    let second = RunningWorker::start(&side, idle.clone()).await;
    for shard in shards {
        assert_eq!(side.outcome_of(shard).await, Outcome::Succeeded);
    }
    let order: Vec<_> = idle.starts().iter().map(|(shard, _)| *shard).collect();
    assert_eq!(order, shards, "in the order in which they were released");
    first.shutdown.request_hurry();
    first.end().await;
    second.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_taken_from_again_as_soon_as_there_is_room() {
    let mut side = FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(&side, executor.clone()).await;
    let first = side.publish(&Spec::new("minute", 1000, 60)).await;
    side.claim().await;
    let shard = side.publish(&Spec::new("second", 500, 1)).await;
    side.until_ready(&queue(Priority::Standard, SizeClass::S), 1).await;
    assert_eq!(side.outcome_of(first).await, Outcome::Succeeded);
    let freed = Instant::now();
    assert_eq!(side.outcome_of(shard).await, Outcome::Succeeded);
    let waited = executor.starts()[1].1 - freed;
    assert!(waited < Duration::from_millis(20), "{waited:?}");
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_worker_keeps_at_most_three_offers() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    side.publish(&Spec::new("hour", 1000, 1)).await;
    side.claim().await;
    let queues = SizeClass::ALL.map(|class| queue(Priority::Batch, class));
    for class in SizeClass::ALL {
        side.publish(&Spec::new("second", 500, 1).class(class).priority(Priority::Batch)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut ready = Vec::new();
    for queue in &queues {
        ready.push(side.ready(queue).await);
    }
    assert_eq!(ready, [0, 0, 0, 0, 1], "of windows of one the oldest three are kept, and tiny ones do not count");
    worker.shutdown.request_hurry();
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_never_fits_is_handed_back_at_once_and_does_not_hold_up_others() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    let giant = Spec { memory: Bytes::gib(2), ..Spec::new("second", 10, 1).class(SizeClass::Xl) };
    side.publish(&giant.priority(Priority::Urgent)).await;
    let small = side.publish(&Spec::new("second", 500, 1)).await;
    assert_eq!(side.outcome_of(small).await, Outcome::Succeeded);
    assert_eq!(side.ready(&queue(Priority::Urgent, SizeClass::Xl)).await, 1);
    worker.end().await;
}
