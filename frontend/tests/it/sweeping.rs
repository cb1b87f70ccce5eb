//! The sweeper as a service, beside the real ledger and dispatcher: what was lost on its way is ordered again, and what
//! nobody wants is told to stop.

use std::time::Duration;

use forecastle_broker::{Broker as _, ConsumeOptions, Consumer, ConsumerEvent};
use forecastle_frontend::ledger::{DecisionKind, EventKind, InFlight, Ledger as _, RunEvent};
use forecastle_protos::ids::{RunId, WorkerId};
use forecastle_protos::v1::{self, Outcome, control_message::Kind};
use prost::Message as _;
use tokio::time::Instant;

use crate::service::{PATIENCE, Service};

const GRACE: Duration = Duration::from_secs(1);

/// Repeats the worker's reports until the ledger has a decision of that kind.
async fn decided(service: &Service, kind: DecisionKind, leases: &[v1::LeaseReport]) -> Vec<DecisionKind> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        service.reports(leases.to_vec());
        let log = service.ledger.decisions_after(0, 100).await.unwrap();
        let kinds: Vec<_> = log.into_iter().map(|recorded| recorded.decision.kind).collect();
        if kinds.contains(&kind) {
            return kinds;
        }
        assert!(Instant::now() < deadline, "{kinds:?} is all that was decided");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until that attempt of the only shard is with the broker.
async fn attempt(service: &Service, number: u32) -> InFlight {
    let deadline = Instant::now() + PATIENCE;
    loop {
        service.reports(Vec::new());
        let released = service.released(0).await;
        if let Some(found) = released.into_iter().find(|attempt| attempt.release.attempt == number) {
            return found;
        }
        assert!(Instant::now() < deadline, "attempt {number} is not released");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Takes the message of an attempt out of its queue, for ever.
async fn steal(service: &Service, attempt: &InFlight) {
    let options = ConsumeOptions { window: 1, exclusive: false, tag: "thief".to_owned() };
    let mut thief = service.broker.consumer(&attempt.release.queue, options).await.unwrap();
    match tokio::time::timeout(PATIENCE, thief.next()).await.expect("it is in its queue") {
        Some(ConsumerEvent::Delivery(delivery)) => assert!(delivery.ack().await),
        other => panic!("it is in its queue: {other:?}"),
    }
    thief.close().await;
}

async fn next_stop(heard: &mut Box<dyn Consumer>, of: RunId) -> String {
    loop {
        let message = crate::service::next_message(heard).await;
        if let Some(Kind::Cancel(stop)) = v1::ControlMessage::decode(&*message.body).unwrap().kind
            && stop.run_ids == [of.to_string()]
        {
            return stop.reason;
        }
    }
}

fn lease(run: RunId, attempt: &InFlight) -> v1::LeaseReport {
    v1::LeaseReport {
        run_id: run.to_string(),
        shard_id: attempt.release.shard.to_string(),
        attempt: attempt.release.attempt,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_message_that_is_nowhere_is_ordered_again_and_the_log_says_why() {
    let mut service = Service::start().await;
    service.sweep(GRACE);
    let request = service.submit_note().await;
    let first = attempt(&service, 1).await;
    // As long as it is in its queue nothing is decided, however old it is.
    let until = Instant::now() + GRACE * 3;
    while Instant::now() < until {
        service.reports(Vec::new());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(service.ledger.decisions_after(0, 10).await.unwrap(), []);
    steal(&service, &first).await;
    assert_eq!(decided(&service, DecisionKind::Stuck, &[]).await, [DecisionKind::Stuck]);
    let second = attempt(&service, 2).await;
    assert_eq!(second.release.shard, first.release.shard);
    let end = service.run_to_the_end(&request).await;
    assert_eq!(end["state"], "REQUEST_STATE_SUCCEEDED", "{end}");
}

#[tokio::test]
async fn a_run_that_its_living_worker_forgot_and_one_whose_worker_is_silent_are_lost_once() {
    let mut service = Service::start().await;
    service.sweep(GRACE);
    let request = service.submit_note().await;
    let first = attempt(&service, 1).await;
    steal(&service, &first).await;
    let forgotten = RunId::new();
    service.tell(vec![service.event(forgotten, &first, EventKind::Claimed)]).await;
    assert_eq!(decided(&service, DecisionKind::Lost, &[]).await, [DecisionKind::Lost]);

    let second = attempt(&service, 2).await;
    steal(&service, &second).await;
    let silent = WorkerId::new();
    let run = RunId::new();
    let claimed = RunEvent { worker: silent, ..service.event(run, &second, EventKind::Claimed) };
    service.tell(vec![claimed]).await;
    attempt(&service, 3).await;
    let log = service.ledger.decisions_after(0, 10).await.unwrap();
    let runs: Vec<_> = log.iter().map(|recorded| (recorded.decision.run, recorded.decision.kind)).collect();
    assert_eq!(runs, [(Some(forgotten), DecisionKind::Lost), (Some(run), DecisionKind::Lost)]);

    // Whichever success comes first wins, also that of a run that was given up.
    let mut heard = service.control_messages().await;
    let success = crate::service::completed(Outcome::Succeeded, "");
    service.tell(vec![service.event(forgotten, &first, success)]).await;
    let end = service.wait_for(&format!("/v1/requests/{request}"), |status| status["finishedUnixMs"].is_string()).await;
    assert_eq!(end["state"], "REQUEST_STATE_SUCCEEDED", "{end}");

    // What the others left is of no use, says the sweeper once.
    let won = loop {
        let message = crate::service::next_message(&mut heard).await;
        if let Some(Kind::DiscardOutputs(discard)) = v1::ControlMessage::decode(&*message.body).unwrap().kind {
            break discard.shards;
        }
    };
    let expected = v1::WonBy { shard_id: first.release.shard.to_string(), run_id: forgotten.to_string() };
    assert_eq!(won, [expected]);

    // The worker that was silent is back, and runs on: it is told that nobody wants that.
    let stop = service.stop.clone();
    let reported = lease(run, &second);
    let stopped = async {
        let reason = next_stop(&mut heard, run).await;
        stop.cancel();
        reason
    };
    let reports = async {
        while !stop.is_cancelled() {
            service.reports(vec![reported.clone()]);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(tokio::join!(stopped, reports).0, "superseded");
}

#[tokio::test]
async fn what_a_lost_run_left_goes_also_if_its_request_never_succeeds() {
    let mut service = Service::start().await;
    service.sweep(GRACE);
    let request = service.submit_note().await;
    let first = attempt(&service, 1).await;
    steal(&service, &first).await;
    let lost = RunId::new();
    service.tell(vec![service.event(lost, &first, EventKind::Claimed)]).await;
    assert_eq!(decided(&service, DecisionKind::Lost, &[]).await, [DecisionKind::Lost]);
    attempt(&service, 2).await;
    // Until then it may be heard of, and win.
    let mut heard = service.control_messages().await;
    service.ledger.cancel(request.parse().unwrap(), 1).await.unwrap();
    let discarded = async {
        loop {
            let message = crate::service::next_message(&mut heard).await;
            if let Some(Kind::DiscardOutputs(discard)) = v1::ControlMessage::decode(&*message.body).unwrap().kind {
                break discard;
            }
        }
    };
    let reports = async {
        loop {
            service.reports(Vec::new());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let discard = tokio::select! {
        discard = discarded => discard,
        () = reports => unreachable!(),
    };
    let expected = v1::RunOf { shard_id: first.release.shard.to_string(), run_id: lost.to_string() };
    assert_eq!((discard.shards, discard.runs), (vec![], vec![expected]));
    let deadline = Instant::now() + PATIENCE;
    while !service.ledger.left_behind(10).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "it is said once");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
