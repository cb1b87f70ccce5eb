//! What comes back.

use std::time::Duration;

use forecastle_client::{Awaited, Client, ClientOptions, Error};
use forecastle_protos::v1;
use tokio::time::timeout;

use crate::broker::{Frontend, LONG, accepted, finished, request};

#[tokio::test]
async fn accepted_and_finished_come_to_their_own_submission_in_whatever_order() {
    let mut frontend = Frontend::new().await;
    let client = frontend.client().await;
    let (a, b) = (client.submit(request("a")).await.unwrap(), client.submit(request("b")).await.unwrap());
    let (mut for_a, mut for_b) = (frontend.receive().await, frontend.receive().await);
    if for_a.body().idempotency_key != "a" {
        std::mem::swap(&mut for_a, &mut for_b);
    }
    // A small request can finish before its acceptance is told.
    assert!(frontend.reply(&for_b, finished("B")).await);
    assert!(frontend.reply(&for_b, accepted("B")).await);
    assert!(frontend.reply(&for_a, accepted("A")).await);
    assert!(frontend.reply(&for_a, finished("A")).await);
    for (submission, id) in [(&a, "A"), (&b, "B")] {
        assert_eq!(timeout(LONG, submission.finished()).await.unwrap().unwrap().request_id, id);
        let accepted = timeout(LONG, submission.accepted()).await.unwrap().unwrap();
        assert_eq!((accepted.request_id.as_str(), accepted.created), (id, true));
    }
    client.close().await;
    frontend.end().await;
}

#[tokio::test]
async fn a_rejection_is_a_typed_error_for_both_waits() {
    let mut frontend = Frontend::new().await;
    let client = frontend.client().await;
    let submission = client.submit(request("k")).await.unwrap();
    let received = frontend.receive().await;
    let detail = v1::ErrorDetail {
        code: "unknown-request-type".to_owned(),
        message: "there is no request type `archive`".to_owned(),
        field: "requestType".to_owned(),
    };
    assert!(frontend.reply(&received, v1::reply::Kind::Rejected(detail.clone())).await);
    for error in [submission.accepted().await.unwrap_err(), submission.finished().await.unwrap_err()] {
        assert!(matches!(&error, Error::Rejected(told) if *told == detail), "{error:?}");
        assert!(!error.is_retryable());
    }
    client.close().await;
    frontend.end().await;
}

#[tokio::test]
async fn work_that_failed_is_a_status_and_no_error() {
    let mut frontend = Frontend::new().await;
    let client = frontend.client().await;
    let submission = client.submit(request("k")).await.unwrap();
    let received = frontend.receive().await;
    let state = v1::RequestState::Failed.into();
    let status = v1::RequestStatus { request_id: "r".to_owned(), state, ..Default::default() };
    let kind = v1::reply::Kind::Finished(v1::Finished { status: Some(status.clone()) });
    assert!(frontend.reply(&received, kind).await);
    assert_eq!(timeout(LONG, submission.finished()).await.unwrap().unwrap(), status);
    client.close().await;
    frontend.end().await;
}

#[tokio::test]
async fn a_frontend_that_does_not_answer_is_a_timeout_with_the_key_and_a_late_answer_still_counts() {
    let mut frontend = Frontend::new().await;
    let options = ClientOptions {
        accepted_timeout: Duration::from_millis(50),
        finished_timeout: Some(Duration::from_millis(50)),
        ..frontend.options()
    };
    let client = Client::connect(options).await.unwrap();
    let submission = client.submit(request("k")).await.unwrap();
    let received = frontend.receive().await;
    for (error, what) in [
        (submission.accepted().await.unwrap_err(), Awaited::Accepted),
        (submission.finished().await.unwrap_err(), Awaited::Finished),
    ] {
        let named = matches!(&error, Error::Timeout { awaited, key } if *awaited == what && key == "k");
        assert!(named && error.is_retryable(), "{error:?}");
    }
    assert!(frontend.reply(&received, accepted("late")).await);
    let late = async {
        loop {
            if let Ok(accepted) = submission.accepted().await {
                return accepted;
            }
        }
    };
    assert_eq!(timeout(LONG, late).await.unwrap().request_id, "late");
    client.close().await;
    frontend.end().await;
}

#[tokio::test]
async fn an_unreadable_reply_is_told_to_its_submission_and_to_no_other() {
    let mut frontend = Frontend::new().await;
    let client = frontend.client().await;
    let bad = client.submit(request("bad")).await.unwrap();
    let to_bad = frontend.receive().await;
    let good = client.submit(request("good")).await.unwrap();
    let to_good = frontend.receive().await;
    assert!(frontend.reply_bytes(&to_bad, "accepted", b"\xff\xff\xff").await);
    assert!(frontend.reply(&to_good, accepted("G")).await);
    let error = timeout(LONG, bad.finished()).await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::UnreadableReply { key, .. } if key == "bad"), "{error:?}");
    assert_eq!(timeout(LONG, good.accepted()).await.unwrap().unwrap().request_id, "G");
    client.close().await;
    frontend.end().await;
}

#[tokio::test]
async fn a_conflict_comes_to_the_submission_that_caused_it() {
    let mut frontend = Frontend::new().await;
    let client = frontend.client().await;
    let first = client.submit(request("k")).await.unwrap();
    let to_first = frontend.receive().await;
    let other_body = v1::SubmitRequest { request_type: "other".to_owned(), ..request("k") };
    let second = client.submit(other_body).await.unwrap();
    let to_second = frontend.receive().await;
    assert_ne!(to_first.correlation(), to_second.correlation());
    let detail = v1::ErrorDetail { code: "idempotency-conflict".to_owned(), ..Default::default() };
    assert!(frontend.reply(&to_second, v1::reply::Kind::Rejected(detail)).await);
    assert!(frontend.reply(&to_first, accepted("r")).await);
    assert!(matches!(timeout(LONG, second.accepted()).await.unwrap(), Err(Error::Rejected(_))));
    assert_eq!(timeout(LONG, first.accepted()).await.unwrap().unwrap().request_id, "r");
    client.close().await;
    frontend.end().await;
}

#[tokio::test]
async fn closing_ends_waiting_and_takes_the_reply_queue_away() {
    let mut frontend = Frontend::new().await;
    let client = frontend.client().await;
    let submission = client.submit(request("k")).await.unwrap();
    let received = frontend.receive().await;
    let (waited, ()) = tokio::join!(submission.finished(), client.close());
    assert!(matches!(waited, Err(Error::Closed)), "{waited:?}");
    assert!(matches!(client.submit(request("k")).await, Err(Error::Closed)));
    assert!(!frontend.reply(&received, finished("r")).await, "the reply queue is still there");
    frontend.end().await;
}
