//! What is reserved never exceeds the capacity, and what is guaranteed comes back.

use std::time::Duration;

use forecastle_protos::v1::{self, Outcome};
use forecastle_resources::{Bytes, CpuMillis, Priority, ResourceVector, SizeClass};

use crate::frontend_side::{FrontendSide, RunningWorker, Spec};
use crate::scripted::Scripted;

#[tokio::test(start_paused = true)]
async fn many_shards_of_all_sizes_never_reserve_more_than_there_is() {
    let mut side = FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(&side, executor.clone()).await;
    let mut wanted = Vec::new();
    for number in 0..120_u64 {
        let class = SizeClass::ALL[usize::try_from(number % 5).unwrap()];
        let priority = Priority::ALL[usize::try_from(number % 3).unwrap()];
        let unit = if number % 4 == 0 { "minute" } else { "second" };
        let predicted = if unit == "minute" { 60 } else { 1 };
        let spec = Spec::new(unit, 50 + (number * 37) % 800, predicted).class(class).priority(priority);
        let spec = Spec { memory: Bytes::mib(8 + (number * 53) % 600), ..spec };
        wanted.push(side.publish(&spec).await.to_string());
    }
    let mut ended = Vec::new();
    for _ in &wanted {
        let (event, completed) = side.completion().await;
        assert_eq!(completed.outcome(), Outcome::Succeeded);
        ended.push(event.shard_id);
    }
    ended.sort();
    wanted.sort();
    assert_eq!(ended, wanted, "each once");
    worker.end().await;
    let (most, capacity) = (executor.most(), ResourceVector::new(CpuMillis(1000), Bytes::gib(1)));
    assert!(most.fits_in(&capacity), "{most}");
    assert!(most.cpu > CpuMillis(800) || most.memory > Bytes::mib(800), "it was full at some time: {most}");
}

#[tokio::test(start_paused = true)]
async fn shards_whose_scratch_is_together_more_than_there_is_do_not_run_at_once() {
    let mut side = FrontendSide::new().await;
    let executor = Scripted::new();
    let worker =
        RunningWorker::start_with(&side, executor.clone(), |options| options.capacity.scratch = Bytes::gib(10)).await;
    let spec = Spec { scratch: Bytes::gib(6), ..Spec::new("minute", 100, 60) };
    let first = side.publish(&spec).await;
    side.claim().await;
    let report = side.report_where(|report| report.leases.len() == 1).await;
    let scratch = |vector: Option<v1::ResourceVector>| Bytes(vector.unwrap().scratch_bytes);
    assert_eq!((scratch(report.capacity), scratch(report.free)), (Bytes::gib(10), Bytes::gib(4)));
    let small = side.publish(&Spec { scratch: Bytes::gib(4), ..Spec::new("second", 100, 1) }).await;
    assert_eq!(side.outcome_of(small).await, Outcome::Succeeded, "there is room for it beside the first");
    let second = side.publish(&spec).await;
    assert_eq!(side.outcome_of(first).await, Outcome::Succeeded);
    assert_eq!(side.outcome_of(second).await, Outcome::Succeeded);
    let (_, first_started) = executor.starts()[0];
    let (last, last_started) = executor.starts()[2];
    assert_eq!(last, second);
    assert!(last_started - first_started >= Duration::from_mins(1), "one after the other");
    assert_eq!(executor.most().scratch, Bytes::gib(10));
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_word_of_it_the_capacity_has_the_scratch_that_is_free() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    let capacity = side.report().await.capacity.unwrap();
    assert!(capacity.scratch_bytes > 0, "{capacity:?}");
    let shard = side.publish(&Spec { scratch: Bytes::mib(1), ..Spec::new("second", 100, 1) }).await;
    assert_eq!(side.outcome_of(shard).await, Outcome::Succeeded);
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_borrower_that_overruns_is_preempted_when_the_owner_waits() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start_with(&side, Scripted::new(), |options| {
        options.shares.urgent.guaranteed = ResourceVector::new(CpuMillis(500), Bytes::mib(512));
    })
    .await;
    let borrower = side.publish(&Spec::new("hour", 900, 5).priority(Priority::Batch)).await;
    side.claim().await;
    let started = tokio::time::Instant::now();
    let owner = side.publish(&Spec::new("second", 400, 1).priority(Priority::Urgent)).await;
    assert_eq!(side.outcome_of(borrower).await, Outcome::Preempted);
    assert!((5..8).contains(&started.elapsed().as_secs()), "after its predicted end: {:?}", started.elapsed());
    assert_eq!(side.outcome_of(owner).await, Outcome::Succeeded);
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_large_shard_does_not_starve_behind_small_ones() {
    let mut side = FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(&side, executor.clone()).await;
    let small = |n: u64| Spec::new("minute", 400 + n, 60);
    side.publish(&small(0)).await;
    side.claim().await;
    let large = side.publish(&Spec::new("second", 1000, 1).class(SizeClass::Xl)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for n in 1..20 {
        side.publish(&small(n)).await;
    }
    // The second small one would fit beside the first for ever, and so on; the large one is older than all of them.
    side.completion().await;
    assert_eq!(side.outcome_of(large).await, Outcome::Succeeded);
    assert_eq!(executor.starts()[1].0, large);
    worker.shutdown.request_hurry();
    worker.end().await;
}
