//! Tiny shards: several at a time, not claimed, acknowledged at their end.

use std::time::Duration;

use forecastle_broker::{Broker as _, ConsumeOptions, ConsumerEvent};
use forecastle_protos::names;
use forecastle_protos::v1::{Outcome, run_event::Kind};
use forecastle_resources::{Priority, SizeClass};

use crate::frontend_side::{FrontendSide, RunningWorker, Spec, queue};
use crate::scripted::Scripted;

fn tiny(unit: &'static str, cpu: u64) -> Spec {
    Spec::new(unit, cpu, 0).class(SizeClass::Tiny)
}

fn waiting() -> String {
    queue(Priority::Standard, SizeClass::Tiny)
}

#[tokio::test(start_paused = true)]
async fn they_run_without_a_claim_and_are_gone_once_their_end_is_told() {
    let mut side = FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(&side, executor.clone()).await;
    let mut shards = Vec::new();
    for _ in 0..40 {
        shards.push(side.publish(&tiny("moment", 10)).await.to_string());
    }
    let mut ended = Vec::new();
    while ended.len() < shards.len() {
        let event = side.event().await;
        let Some(Kind::Completed(completed)) = &event.kind else { panic!("a tiny shard was claimed: {event:?}") };
        assert_eq!((completed.outcome(), &*completed.size_class), (Outcome::Succeeded, "tiny"));
        ended.push(event.shard_id);
    }
    ended.sort_unstable();
    shards.sort_unstable();
    assert_eq!(ended, shards);
    // All are acknowledged: nothing comes back when the worker vanishes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    worker.task.abort();
    worker.broker.disconnect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(side.ready(&waiting()).await, 0);
    assert_eq!(executor.starts().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn until_their_end_is_confirmed_the_broker_keeps_them_and_sends_no_more_than_a_window() {
    let mut side = FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(&side, executor.clone()).await;
    worker.broker.lose_confirms(usize::MAX);
    for _ in 0..20 {
        side.publish(&tiny("moment", 10)).await;
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(executor.starts().len(), 16);
    assert_eq!(side.ready(&waiting()).await, 4);
    worker.task.abort();
    worker.broker.disconnect();
    side.until_ready(&waiting(), 20).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_lasts_too_long_is_claimed_and_hides_nothing() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start_with(&side, Scripted::new(), |options| {
        options.claiming.hold.0 = Duration::from_mins(1);
    })
    .await;
    let long = side.publish(&tiny("minute", 1000)).await;
    for _ in 0..3 {
        side.publish(&tiny("moment", 1000)).await;
    }
    let before = tokio::time::Instant::now();
    assert_eq!(side.claim().await.shard_id, long.to_string());
    assert!(before.elapsed() >= Duration::from_millis(900), "{:?}", before.elapsed());
    side.until_ready(&waiting(), 3).await;
    assert_eq!(side.outcome_of(long).await, Outcome::Succeeded);
    for _ in 0..3 {
        assert_eq!(side.completion().await.1.outcome(), Outcome::Succeeded);
    }
    worker.end().await;
    assert_eq!(side.ready(&waiting()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn of_a_ledger_that_nobody_hears_they_go_to_the_returned_queue() {
    let mut side = FrontendSide::without_events().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    side.publish(&tiny("moment", 10)).await;
    let options = ConsumeOptions { window: 1, exclusive: false, tag: String::new() };
    let mut returned = side.broker.consumer(names::RETURNED, options).await.unwrap();
    let event = tokio::time::timeout(Duration::from_mins(1), returned.next()).await.unwrap();
    assert!(matches!(event, Some(ConsumerEvent::Delivery(_))), "{event:?}");
    worker.end().await;
}
