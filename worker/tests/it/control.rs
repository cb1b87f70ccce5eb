//! What the frontend tells the fleet.

use forecastle_broker::{Address, Broker as _, Message};
use forecastle_protos::names;
use forecastle_protos::v1::control_message::Kind;
use forecastle_protos::v1::{self, Outcome};
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
    assert_eq!((first.sequence, first.units.len(), first.catalogue_hash.len()), (1, 5, 64));
    let asked = Instant::now();
    side.control(Kind::ReportNow(v1::ReportNow {})).await;
    assert_eq!(side.report().await.sequence, 2);
    assert_eq!(asked.elapsed().as_secs(), 0);
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
