//! Offers, claims and what is said of runs.

use std::time::Duration;

use forecastle_broker::{Broker as _, ConsumeOptions, ConsumerEvent, Message};
use forecastle_protos::headers::{HeaderValue, name};
use forecastle_protos::ids::ShardId;
use forecastle_protos::names;
use forecastle_protos::v1::{Outcome, run_event::Kind};
use forecastle_resources::{Priority, SizeClass};

use crate::frontend_side::{FrontendSide, RunningWorker, Spec, queue};
use crate::scripted::Scripted;

#[tokio::test(start_paused = true)]
async fn a_shard_is_claimed_then_run_then_reported_with_all_that_history_needs() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    let shard = side.publish(&Spec::new("second", 500, 1)).await;
    let claim = side.claim().await;
    let report = side.report_where(|report| !report.leases.is_empty()).await;
    assert_eq!(report.leases[0].run_id, claim.run_id);
    assert_eq!(report.leases[0].held.as_ref().unwrap().cpu_millis, 500);
    let lease = &report.leases[0];
    assert_eq!((lease.memory_bytes_now, lease.cpu_millis_now, lease.io_bytes_per_second_now), (12_345, 250, 4096));
    assert_eq!((&*lease.priority, &*lease.size_class, &*lease.unit), ("standard", "s", "second"));
    let standard = report.shares.iter().find(|share| share.priority == "standard").unwrap();
    assert_eq!(standard.held.as_ref().unwrap().cpu_millis, 500);
    assert_eq!(report.free.as_ref().unwrap().cpu_millis, 500);
    let (event, completed) = side.completion().await;
    assert_eq!((&event.run_id, &event.shard_id), (&claim.run_id, &shard.to_string()));
    assert_eq!((event.worker_id, event.attempt), (report.worker_id, 1));
    assert_eq!(completed.outcome(), Outcome::Succeeded);
    assert_eq!((completed.inline_json.as_str(), completed.unit.as_str()), ("7", "second"));
    assert_eq!((completed.priority.as_str(), completed.size_class.as_str()), ("standard", "s"));
    assert!(completed.waited_ms > 0 && completed.usage.unwrap().cpu_ms == 5);
    let report = side.report_where(|report| report.leases.is_empty()).await;
    assert_eq!(report.free, report.capacity);
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn until_the_claim_is_confirmed_nothing_runs_and_the_broker_keeps_the_shard() {
    let mut side = FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(&side, executor.clone()).await;
    let waiting = queue(Priority::Standard, SizeClass::S);
    worker.broker.lose_confirms(usize::MAX);
    let shard = side.publish(&Spec::new("hour", 500, 1)).await;
    assert_eq!(side.claim().await.shard_id, shard.to_string());
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(executor.starts(), []);
    // The worker vanishes.
    worker.task.abort();
    worker.broker.disconnect();
    side.until_ready(&waiting, 1).await;
}

#[tokio::test(start_paused = true)]
async fn once_it_runs_the_broker_has_forgotten_the_shard() {
    let mut side = FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(&side, executor.clone()).await;
    worker.broker.lose_confirms(2);
    side.publish(&Spec::new("hour", 500, 1)).await;
    let first = side.claim().await;
    assert_eq!(side.claim().await, first, "published again until it is confirmed");
    while executor.starts().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    worker.task.abort();
    worker.broker.disconnect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(side.ready(&queue(Priority::Standard, SizeClass::S)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shard_of_a_ledger_that_nobody_hears_goes_to_the_returned_queue() {
    let mut side = FrontendSide::without_events().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(&side, executor.clone()).await;
    side.publish(&Spec::new("second", 500, 1)).await;
    side.until_ready(names::RETURNED, 1).await;
    assert_eq!(executor.starts(), []);
    let report = side.report_where(|report| report.sequence > 3).await;
    assert_eq!(report.free, report.capacity, "its lease was given back");
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_no_shards_go_to_the_returned_queue_and_the_worker_goes_on() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    let to = queue(Priority::Standard, SizeClass::S);
    let nonsense = HeaderValue::Text("nonsense".to_owned());
    side.publish_raw(&to, Message { body: "no shard".into(), ..Message::default() }).await;
    let headers = [(name::MEMORY_BYTES.to_owned(), nonsense)].into();
    side.publish_raw(&to, Message { headers, message_id: Some("second".to_owned()), ..Message::default() }).await;
    let shard = side.publish(&Spec::new("second", 500, 1)).await;
    assert_eq!(side.outcome_of(shard).await, Outcome::Succeeded);
    side.until_ready(names::RETURNED, 2).await;
    let options = ConsumeOptions { window: 9, exclusive: false, tag: String::new() };
    let mut returned = side.broker.consumer(names::RETURNED, options).await.unwrap();
    for body in ["no shard", ""] {
        match returned.next().await {
            Some(ConsumerEvent::Delivery(delivery)) => assert_eq!(delivery.message.body, body),
            other => panic!("{other:?}"),
        }
    }
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_unit_is_answered_as_unsupported() {
    let mut side = FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(&side, executor.clone()).await;
    let unknown = side.publish(&Spec::new("unheard-of", 500, 1)).await;
    let known = side.publish(&Spec::new("second", 500, 1)).await;
    let (event, completed) = side.completion().await;
    assert_eq!((event.shard_id, completed.outcome()), (unknown.to_string(), Outcome::Unsupported));
    assert!(completed.error.contains("unheard-of"), "{}", completed.error);
    assert_eq!(side.outcome_of(known).await, Outcome::Succeeded);
    assert_eq!(executor.starts().len(), 1);
    assert_eq!(side.ready(names::RETURNED).await, 0);
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_panics_fails_its_run_alone() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    let panics = side.publish(&Spec::new("panic", 1000, 1)).await;
    let after = side.publish(&Spec::new("second", 1000, 1)).await;
    assert_eq!(side.outcome_of(panics).await, Outcome::TaskError);
    assert_eq!(side.outcome_of(after).await, Outcome::Succeeded);
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_bounds_a_run_and_one_that_has_passed_prevents_it() {
    let mut side = FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(&side, executor.clone()).await;
    let late = Spec { deadline_unix_ms: Some(1_000_000), ..Spec::new("hour", 100, 1) };
    let late = side.publish(&late).await;
    assert_eq!(side.outcome_of(late).await, Outcome::Timeout);
    assert_eq!(executor.starts(), []);
    let soon = forecastle_worker::clock::now_unix_ms() + 60_000;
    let soon = side.publish(&Spec { deadline_unix_ms: Some(soon), ..Spec::new("hour", 100, 1) }).await;
    assert_eq!(side.outcome_of(soon).await, Outcome::Timeout);
    assert_eq!(executor.starts().len(), 1);
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn channels_lost_between_offer_and_claim_lose_nothing_and_run_nothing_twice() {
    let mut side = FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(&side, executor.clone()).await;
    let first = side.publish(&Spec::new("minute", 1000, 60)).await;
    side.claim().await;
    // In hand, and not claimed: there is no room.
    let mut rest = Vec::new();
    for class in [SizeClass::S, SizeClass::M, SizeClass::L] {
        rest.push(side.publish(&Spec::new("second", 300, 1).class(class)).await);
    }
    for pause in [5, 100, 700] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        worker.broker.interrupt_consumers();
    }
    assert_eq!(side.outcome_of(first).await, Outcome::Succeeded);
    let mut ended: Vec<ShardId> = Vec::new();
    for _ in &rest {
        let (event, completed) = side.completion().await;
        assert_eq!(completed.outcome(), Outcome::Succeeded);
        ended.push(event.shard_id.parse().unwrap());
    }
    ended.sort();
    rest.sort();
    assert_eq!(ended, rest);
    worker.end().await;
    assert_eq!(executor.starts().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_claimed_offer_whose_channel_is_lost_before_the_acknowledgement_runs_once() {
    let mut side = FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(&side, executor.clone()).await;
    // The claim arrives, its confirm does not: the offer is not acknowledged when the channel goes.
    worker.broker.lose_confirms(1);
    let shard = side.publish(&Spec::new("second", 100, 1)).await;
    let claim = side.claim().await;
    worker.broker.interrupt_consumers();
    let mut events = vec![side.event().await];
    while !matches!(events.last().unwrap().kind, Some(Kind::Completed(_))) {
        events.push(side.event().await);
    }
    assert!(events.iter().all(|event| event.run_id == claim.run_id), "{events:?}");
    // Nothing of it is left in the queue.
    let next = side.publish(&Spec::new("second", 100, 1)).await;
    assert_eq!(side.outcome_of(next).await, Outcome::Succeeded);
    worker.end().await;
    assert_eq!(side.ready(&queue(Priority::Standard, SizeClass::S)).await, 0);
    assert_eq!(executor.starts().iter().map(|(shard, _)| *shard).collect::<Vec<_>>(), [shard, next]);
}
