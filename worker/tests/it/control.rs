//! What the frontend tells the fleet.

use std::time::Duration;

use forecastle_broker::{Address, Broker as _, Message};
use forecastle_protos::ids::{RequestId, RunId, ShardId};
use forecastle_protos::names;
use forecastle_protos::v1::control_message::Kind;
use forecastle_protos::v1::{self, Outcome};
use forecastle_resources::Priority;
use tokio::time::Instant;

use crate::frontend_side::{FLEET, FrontendSide, RunningWorker, Spec};
use crate::scripted::Scripted;

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_ends_as_cancelled_with_the_reason_and_others_go_on() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    let unwanted = side.publish(&Spec::new("hour", 400, 3600)).await;
    let run = side.claim().await.run_id;
    let wanted = side.publish(&Spec::new("minute", 400, 60)).await;
    side.claim().await;
    let run_ids = vec!["no run".to_owned(), forecastle_protos::ids::RunId::new().to_string(), run];
    side.control(Kind::Cancel(v1::CancelRuns { run_ids, reason: "superseded".to_owned() })).await;
    let (event, completed) = side.completion().await;
    assert_eq!((event.shard_id, completed.outcome()), (unwanted.to_string(), Outcome::Cancelled));
    assert!(completed.error.contains("superseded"), "{}", completed.error);
    assert_eq!(side.outcome_of(wanted).await, Outcome::Succeeded);
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_report_is_sent_when_asked_for() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start_with(&side, Scripted::new(), |options| {
        options.report.interval = std::time::Duration::from_mins(1).into();
    })
    .await;
    let first = side.report().await;
    assert_eq!((first.sequence, first.units.len(), first.catalogue_hash.len()), (1, 6, 64));
    let asked = Instant::now();
    side.control(Kind::ReportNow(v1::ReportNow {})).await;
    assert_eq!(side.report().await.sequence, 2);
    assert_eq!(asked.elapsed().as_secs(), 0);
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn priorities_get_other_shares_while_work_runs_and_load_reports_say_so() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    let setting = |priority: &str, cpu_millis: u32| v1::ShareSetting {
        priority: priority.to_owned(),
        guaranteed: Some(v1::ResourceVector { cpu_millis, memory_bytes: 1 << 20, ..Default::default() }),
        maximum: None,
    };
    let set = |fleet: &str, worker_id: &str, shares: Vec<v1::ShareSetting>| {
        Kind::SetShares(v1::SetShares { worker_id: worker_id.to_owned(), fleet: fleet.to_owned(), shares })
    };
    let guaranteed = |report: &v1::LoadReport| report.guaranteed.get("urgent").map_or(0, |share| share.cpu_millis);
    assert_eq!(guaranteed(&side.report().await), 0);
    let running = side.publish(&Spec::new("minute", 600, 60).priority(Priority::Batch)).await;
    side.claim().await;

    side.control(set(FLEET, "", vec![setting("urgent", 700)])).await;
    let told = side.report_where(|report| guaranteed(report) == 700).await;
    assert_eq!(told.leases.len(), 1, "what runs goes on");
    // Longer than anything is lent for, so it must not touch what is guaranteed to others now.
    let batch = side.publish(&Spec::new("minute", 400, 60).priority(Priority::Batch)).await;
    let urgent = side.publish(&Spec::new("second", 400, 1).priority(Priority::Urgent)).await;
    assert_eq!(side.outcome_of(urgent).await, Outcome::Succeeded);
    assert_eq!(side.outcome_of(running).await, Outcome::Succeeded);

    // More than there is, an unknown priority, another fleet: nothing changes.
    for refused in [
        set(FLEET, "", vec![setting("urgent", 100), setting("standard", 5000)]),
        set(FLEET, "", vec![setting("soon", 100)]),
        set("another", "", vec![setting("urgent", 100)]),
        set(FLEET, "no-such-worker", vec![setting("urgent", 100)]),
    ] {
        side.control(refused).await;
    }
    side.control(Kind::ReportNow(v1::ReportNow {})).await;
    let asked = side.report().await.sequence;
    let told = side.report_where(|report| report.sequence > asked + 3).await;
    assert_eq!(guaranteed(&told), 700);

    side.control(set("", &told.worker_id, vec![setting("urgent", 0)])).await;
    side.report_where(|report| guaranteed(report) == 0).await;
    assert_eq!(side.outcome_of(batch).await, Outcome::Succeeded, "it may be claimed again");
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn outputs_of_runs_that_did_not_win_are_discarded_as_the_frontend_says() {
    let side = &mut FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(side, executor.clone()).await;
    let shard = ShardId { request: RequestId::new(), stage: 1, index: 2 };
    let winner = RunId::new();
    let won = |shard: String, run: String| v1::WonBy { shard_id: shard, run_id: run };
    let unreadable = won("no-shard".to_owned(), winner.to_string());
    let given_up = RunId::new();
    let run = |run: &str| v1::RunOf { shard_id: shard.to_string(), run_id: run.to_owned() };
    let discard = v1::DiscardOutputs {
        shards: vec![unreadable, won(shard.to_string(), winner.to_string())],
        runs: vec![run("no run"), run(&given_up.to_string())],
    };
    side.control(Kind::DiscardOutputs(discard)).await;
    while executor.discarded_runs().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((executor.discarded(), executor.discarded_runs()), (vec![(shard, winner)], vec![(shard, given_up)]));
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_dead_workers_left_is_looked_for_again_and_again() {
    let side = FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(&side, executor.clone()).await;
    assert_eq!(executor.sweeps(), 0, "at the start the executor has done so by itself");
    tokio::time::sleep(Duration::from_secs(65)).await;
    assert_eq!(executor.sweeps(), 3);
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_read_changes_nothing() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    let publisher = side.broker.publisher(1).await.unwrap();
    let message = Message { body: vec![0xff; 5].into(), ..Message::default() };
    publisher.publish(Address::exchange(names::CONTROL, ""), message).await.unwrap().outcome().await;
    let shard = side.publish(&Spec::new("second", 400, 1)).await;
    assert_eq!(side.outcome_of(shard).await, Outcome::Succeeded);
    worker.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_drains_when_it_is_meant_and_only_then() {
    let mut side = FrontendSide::new().await;
    let worker = RunningWorker::start(&side, Scripted::new()).await;
    let worker_id = side.report().await.worker_id;
    let others = [
        v1::Drain { worker_id: forecastle_protos::ids::WorkerId::new().to_string(), fleet: FLEET.to_owned() },
        v1::Drain { worker_id: String::new(), fleet: "another".to_owned() },
        v1::Drain::default(),
    ];
    for drain in others {
        side.control(Kind::Drain(drain)).await;
    }
    let shard = side.publish(&Spec::new("second", 400, 1)).await;
    assert_eq!(side.outcome_of(shard).await, Outcome::Succeeded);
    assert!(!worker.shutdown.is_draining());
    side.control(Kind::Drain(v1::Drain { worker_id, fleet: String::new() })).await;
    worker.task.await.unwrap().unwrap();
    assert!(side.report_where(|report| report.leaving).await.draining);
}

#[tokio::test(start_paused = true)]
async fn a_worker_expects_its_part_of_what_its_fleet_will_start() {
    let side = &mut FrontendSide::new().await;
    let executor = Scripted::new();
    let worker = RunningWorker::start(side, executor.clone()).await;
    let capacity = side.report().await.capacity.unwrap();
    let demand = |fleet: &str, starts| {
        let all = v1::ResourceVector { cpu_millis: capacity.cpu_millis * 4, ..capacity.clone() };
        let reservation = v1::ResourceVector { cpu_millis: 100, memory_bytes: 1 << 20, ..Default::default() };
        let (unit, request_type) = ("moment".to_owned(), "t".to_owned());
        let units = vec![v1::UnitDemand { unit, request_type, starts, reservation: Some(reservation) }];
        Kind::Demand(v1::Demand { fleet: fleet.to_owned(), horizon_ms: 10_000, capacity: Some(all), units })
    };
    side.control(demand("another", 99.0)).await;
    side.control(demand(FLEET, 8.0)).await;
    while executor.expected().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (expected, for_so_long) = executor.expected().unwrap();
    assert_eq!((expected.len(), expected[0].unit.as_str(), for_so_long), (1, "moment", Duration::from_secs(30)));
    assert!((expected[0].expectation.starts - 2.0).abs() < 1e-9, "a quarter: {expected:?}");
    worker.end().await;
}
