//! What is reserved never exceeds the capacity, and what is guaranteed comes back.

use std::time::Duration;

use forecastle_protos::v1::Outcome;
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
