//! What goes to the broker, and what its answers become.

use std::collections::BTreeSet;
use std::time::Duration;

use forecastle_client::{Client, ClientOptions, Error};
use forecastle_protos::PROTOBUF;
use lapin::types::AMQPValue;

use crate::broker::{Frontend, accepted, request, url};

#[tokio::test]
async fn a_request_arrives_persistent_with_its_key_and_a_place_for_replies() {
    let mut frontend = Frontend::new().await;
    let client = frontend.client().await;
    let submission = client.submit(request("monday")).await.unwrap();
    assert_eq!(submission.idempotency_key(), "monday");
    let received = frontend.receive().await;
    assert_eq!(received.body(), request("monday"));
    let properties = &received.0.properties;
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "monday");
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), PROTOBUF);
    assert_eq!(received.0.exchange.as_str(), "");
    assert!(frontend.reply(&received, accepted("r")).await, "the reply queue takes no replies");
    client.close().await;
    frontend.end().await;
}

#[tokio::test]
async fn a_request_without_a_key_gets_one_of_its_own() {
    let mut frontend = Frontend::new().await;
    let client = frontend.client().await;
    let (one, other) = (client.submit(request("")).await.unwrap(), client.submit(request("")).await.unwrap());
    assert_ne!(one.idempotency_key(), other.idempotency_key());
    assert_eq!(frontend.receive().await.body().idempotency_key, one.idempotency_key());
    client.close().await;
    frontend.end().await;
}

#[tokio::test]
async fn a_missing_queue_says_that_no_frontend_has_run_and_is_not_declared() {
    let queue = format!("forecastle.test.client.missing.{}", uuid::Uuid::new_v4());
    let client =
        Client::connect(ClientOptions { requests_queue: queue.clone(), ..ClientOptions::new(url()) }).await.unwrap();
    for _ in 0..2 {
        // The second time would succeed, had the first declared it.
        let error = client.submit(request("k")).await.unwrap_err();
        assert!(matches!(&error, Error::NoFrontend { queue: named } if *named == queue), "{error:?}");
        assert!(error.to_string().contains("no frontend has run"), "{error}");
        assert!(!error.is_retryable());
    }
    client.close().await;
}

#[tokio::test]
async fn a_full_queue_is_a_retryable_refusal() {
    let limits =
        [("x-max-length", AMQPValue::LongInt(1)), ("x-overflow", AMQPValue::LongString("reject-publish".into()))];
    let frontend = Frontend::idle(&limits).await;
    let client = frontend.client().await;
    // Queues notice that they are full a little late.
    let mut refused = None;
    for number in 0..50 {
        if let Err(error) = client.submit(request(&number.to_string())).await {
            refused = Some(error);
            break;
        }
    }
    let error = refused.expect("50 messages went into a queue for 1");
    assert!(matches!(&error, Error::Full { queue, .. } if *queue == frontend.queue), "{error:?}");
    assert!(error.is_retryable());
    client.close().await;
    frontend.end().await;
}

#[tokio::test]
async fn a_key_that_is_too_long_is_refused_before_sending_and_the_longest_goes_through() {
    let mut frontend = Frontend::new().await;
    let client = frontend.client().await;
    let error = client.submit(request(&"k".repeat(257))).await.unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { field: "idempotency_key", .. }), "{error:?}");
    client.submit(request(&"k".repeat(256))).await.unwrap();
    assert_eq!(frontend.receive().await.body().idempotency_key.len(), 256);
    client.close().await;
    frontend.end().await;
}

#[tokio::test]
async fn many_submissions_at_once_share_a_few_channels_and_all_arrive() {
    let mut frontend = Frontend::new().await;
    let client = Client::connect(ClientOptions { channels: 4, connections: 2, ..frontend.options() }).await.unwrap();
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.submit(request(&number.to_string())).await.map(drop) })
        })
        .collect();
    let mut keys = BTreeSet::new();
    for task in tasks {
        task.await.unwrap().unwrap();
        keys.insert(frontend.receive().await.body().idempotency_key);
    }
    assert_eq!(keys.len(), 200);
    client.close().await;
    frontend.end().await;
}

#[tokio::test]
async fn submissions_given_up_half_way_do_not_spoil_the_channel_for_others() {
    let mut frontend = Frontend::new().await;
    let client = Client::connect(ClientOptions { channels: 1, ..frontend.options() }).await.unwrap();
    let lost = Client::connect(ClientOptions {
        channels: 1,
        requests_queue: format!("{}.missing", frontend.queue),
        ..frontend.options()
    })
    .await
    .unwrap();
    for number in 0..20 {
        // Dropped somewhere between the first write and the answer.
        let some_time = Duration::from_micros(number * 150);
        let _ = tokio::time::timeout(some_time, client.submit(request(&format!("dropped-{number}")))).await;
        let _ = tokio::time::timeout(some_time, lost.submit(request("dropped"))).await;
    }
    client.submit(request("kept")).await.unwrap();
    while frontend.receive().await.body().idempotency_key != "kept" {}
    assert!(matches!(lost.submit(request("kept")).await, Err(Error::NoFrontend { .. })));
    client.close().await;
    lost.close().await;
    frontend.end().await;
}
