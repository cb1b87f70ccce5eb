//! Requests over AMQP: what is refused, with what words, and where it is kept; and who hears how a request ended.

use std::time::Duration;

use forecastle_broker::{
    Address, Broker as _, ConsumeOptions, Consumer, Message, PublishOutcome, Publisher, Queue, QueueKind, Topology,
};
use forecastle_frontend::ledger::{Ledger as _, Listing};
use forecastle_protos::headers::{HeaderValue, name};
use forecastle_protos::v1::reply::Kind;
use forecastle_protos::{JSON, PROTOBUF, names, v1};
use prost::Message as _;
use serde_json::json;

use super::service::{MAX_BODY, PATIENCE, Service, next_message};

/// Somebody who submits, and where the replies come in.
struct Producer {
    publisher: std::sync::Arc<dyn Publisher>,
    queue: String,
    replies: Box<dyn Consumer>,
}

async fn consumer(service: &Service, queue: &str) -> Box<dyn Consumer> {
    let options = ConsumeOptions { window: 10, exclusive: false, tag: "test".to_owned() };
    service.broker.consumer(queue, options).await.unwrap()
}

impl Producer {
    async fn new(service: &Service, queue: &str) -> Self {
        let kind = QueueKind::Exclusive { max_length: 100 };
        let declared = Queue { name: queue.to_owned(), kind, bindings: Vec::new() };
        service.broker.declare(&Topology { exchanges: Vec::new(), queues: vec![declared] }).await.unwrap();
        let replies = consumer(service, queue).await;
        Self { publisher: service.broker.publisher(10).await.unwrap(), queue: queue.to_owned(), replies }
    }

    /// Publishes a body; its message id is its key.
    async fn submit(&self, content_type: &str, body: Vec<u8>, key: &str) -> Message {
        let message = Message {
            body: body.into(),
            content_type: Some(content_type.to_owned()),
            message_id: Some(key.to_owned()).filter(|key| !key.is_empty()),
            reply_to: Some(self.queue.clone()),
            correlation_id: Some(format!("about {key}")),
            persistent: true,
            ..Message::default()
        };
        let sent = self.publisher.publish(Address::queue(names::REQUESTS), message.clone()).await.unwrap();
        assert_eq!(sent.outcome().await, PublishOutcome::Confirmed);
        message
    }

    /// The next reply, which must answer what was submitted with `key` and be in the form that was asked in.
    async fn hears(&mut self, content_type: &str, key: &str) -> Kind {
        let message = next_message(&mut self.replies).await;
        assert_eq!(message.correlation_id, Some(format!("about {key}")));
        assert_eq!(message.content_type.as_deref(), Some(content_type));
        let reply: v1::Reply = if content_type == JSON {
            serde_json::from_slice(&message.body).unwrap()
        } else {
            v1::Reply::decode(&*message.body).unwrap()
        };
        let kind = reply.kind.unwrap();
        let told = match &kind {
            Kind::Accepted(_) => "accepted",
            Kind::Rejected(_) => "rejected",
            Kind::Finished(_) => "finished",
        };
        assert_eq!(message.kind.as_deref(), Some(told));
        kind
    }
}

#[tokio::test]
async fn whatever_is_wrong_is_kept_with_the_reason_and_answered_with_the_field() {
    let service = Service::start().await;
    let mut producer = Producer::new(&service, "replies").await;
    let mut rejected = consumer(&service, names::REJECTED).await;
    let note = |parameters: serde_json::Value| json!({ "requestType": "note", "parameters": parameters }).to_string();
    let copy = |directory: &str| json!({ "requestType": "copy", "input": { "directory": directory } }).to_string();
    let many = "x".repeat(40_000);
    let cases: Vec<(&str, Vec<u8>, &str, &str, &str)> = vec![
        (PROTOBUF, vec![0xff; 16], "malformed-body", "", "SubmitRequest"),
        (JSON, b"{\"requestType\": ".to_vec(), "malformed-body", "requestType", "line 1 column"),
        (JSON, b"{\"requestType\": \"note\"} more".to_vec(), "malformed-body", "", "after the body"),
        (JSON, br#"{"requestType": "note", "labels": {"k": 7}}"#.to_vec(), "malformed-body", "labels.k", "line 1"),
        (JSON, br#"{"requestTyp": "note"}"#.to_vec(), "unknown-field", "requestTyp", "requestType"),
        (
            JSON,
            br#"{"requestType": "note", "parameters": {"level": 9007199254740993}}"#.to_vec(),
            "malformed-body",
            "parameters.level",
            "a whole number beyond 2^53 must be sent as a text",
        ),
        (JSON, b"{}".to_vec(), "unknown-request-type", "requestType", ""),
        (JSON, json!({ "requestType": "not" }).to_string().into(), "unknown-request-type", "requestType", "note"),
        // What repeats what came still fits into a header.
        (JSON, json!({ "requestType": many }).to_string().into(), "unknown-request-type", "requestType", ""),
        (JSON, note(json!({ "level": 10 })).into(), "invalid-parameter", "parameters.level", "9"),
        (JSON, note(json!({ "level": "high" })).into(), "invalid-parameter", "parameters.level", ""),
        (JSON, note(json!({ "other": 1 })).into(), "invalid-parameter", "parameters.other", ""),
        (JSON, json!({ "requestType": "letter" }).to_string().into(), "invalid-parameter", "parameters.to", ""),
        (JSON, json!({ "requestType": "copy" }).to_string().into(), "invalid-input", "input", "input.directory"),
        (JSON, copy("/etc").into(), "input-not-allowed", "input.directory", "/etc"),
        (JSON, copy("relative").into(), "input-not-allowed", "input.directory", "absolute"),
        (JSON, vec![b' '; usize::try_from(MAX_BODY).unwrap() + 1], "body-too-large", "", "the limit is 65536"),
        ("text/plain", b"note".to_vec(), "unsupported-content-type", "", "text/plain"),
    ];
    for (number, (content_type, body, code, field, words)) in cases.into_iter().enumerate() {
        let key = format!("key {number}");
        let sent = producer.submit(content_type, body, &key).await;
        let form = if content_type == JSON { JSON } else { PROTOBUF };
        let Kind::Rejected(told) = producer.hears(form, &key).await else { panic!("case {number} was not refused") };
        let shown = format!("case {number}: {told:?}").chars().take(500).collect::<String>();
        assert_eq!(told.code, code, "{shown}");
        assert_eq!(told.field, field, "{shown}");
        assert!(told.message.contains(words), "{shown}");
        let mut kept = next_message(&mut rejected).await;
        let Some(HeaderValue::Text(reason)) = kept.headers.remove(name::REJECTED_BECAUSE) else { panic!("no reason") };
        assert!(reason.starts_with(&told.code) && reason.contains(field) && reason.len() < 4096, "{shown}: {reason}");
        assert_eq!(kept, sent, "it is kept as it came");
    }
    assert!(service.ledger_is_empty().await, "nothing of it is in the ledger");

    // Neither a key nor a message id.
    producer.submit(JSON, note(json!({})).into(), "").await;
    let Kind::Rejected(told) = producer.hears(JSON, "").await else { panic!("it was not refused") };
    assert_eq!((&*told.code, &*told.field), ("missing-idempotency-key", "idempotencyKey"));

    // The frontend goes on, and the same key with another body is a conflict.
    producer.submit(JSON, note(json!({ "level": 4 })).into(), "good").await;
    assert!(matches!(producer.hears(JSON, "good").await, Kind::Accepted(accepted) if accepted.created));
    producer.submit(JSON, note(json!({ "level": 5 })).into(), "good").await;
    let Kind::Rejected(told) = producer.hears(JSON, "good").await else { panic!("it was not refused") };
    assert_eq!((&*told.code, &*told.field), ("idempotency-conflict", "idempotencyKey"));
}

#[tokio::test]
async fn a_producer_that_restarts_and_submits_again_hears_how_it_ended() {
    let mut service = Service::start().await;
    service.run_everything();
    let body = v1::SubmitRequest { request_type: "note".to_owned(), ..Default::default() }.encode_to_vec();
    let mut first = Producer::new(&service, "first").await;
    first.submit(PROTOBUF, body.clone(), "k").await;
    let Kind::Accepted(accepted) = first.hears(PROTOBUF, "k").await else { panic!("not accepted") };
    assert!(accepted.created);
    let Kind::Finished(ended) = first.hears(PROTOBUF, "k").await else { panic!("not finished") };

    let mut second = Producer::new(&service, "second").await;
    second.submit(PROTOBUF, body.clone(), "k").await;
    let Kind::Accepted(again) = second.hears(PROTOBUF, "k").await else { panic!("not accepted") };
    assert_eq!((again.request_id, again.created), (accepted.request_id, false));
    assert_eq!(second.hears(PROTOBUF, "k").await, Kind::Finished(ended));

    // From where it was told already: whoever asks is told, and nobody else.
    second.submit(PROTOBUF, body, "k").await;
    assert!(matches!(second.hears(PROTOBUF, "k").await, Kind::Accepted(_)));
    assert!(matches!(second.hears(PROTOBUF, "k").await, Kind::Finished(_)));
    for producer in [&mut first, &mut second] {
        let more = tokio::time::timeout(Duration::from_millis(300), producer.replies.next()).await;
        assert!(more.is_err(), "nobody hears more: {more:?}");
    }
}

#[tokio::test]
async fn replies_that_nobody_can_receive_are_given_up_and_hold_up_no_others() {
    let mut service = Service::start().await;
    service.run_everything();
    // One that is full, one that is not there, one that is sound.
    let kind =
        QueueKind::Quorum { max_length: Some(1), delivery_limit: 100, dead_letter: None, consumer_timeout: None };
    let full = Queue { name: "full".to_owned(), kind, bindings: Vec::new() };
    service.broker.declare(&Topology { exchanges: Vec::new(), queues: vec![full] }).await.unwrap();
    let mut sound = Producer::new(&service, "sound").await;
    let stuffing = sound.publisher.publish(Address::queue("full"), Message::default()).await.unwrap();
    assert_eq!(stuffing.outcome().await, PublishOutcome::Confirmed);
    let body = v1::SubmitRequest { request_type: "note".to_owned(), ..Default::default() }.encode_to_vec();
    for queue in ["full", "gone", "sound"] {
        sound.queue = queue.to_owned();
        sound.submit(PROTOBUF, body.clone(), queue).await;
    }
    assert!(matches!(sound.hears(PROTOBUF, "sound").await, Kind::Accepted(_)));
    assert!(matches!(sound.hears(PROTOBUF, "sound").await, Kind::Finished(_)));

    let succeeded =
        Listing { tenant: "default".to_owned(), state: Some(v1::RequestState::Succeeded), before: None, limit: 10 };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (ended, _) = service.ledger.list(succeeded.clone()).await.unwrap();
        if ended.len() == 3 && service.ledger.open_work().await.unwrap().replies_owed.is_empty() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "a reply is still owed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The trace context of the shard that was released last, as it stands in its message.
async fn released(consumer: &mut Box<dyn Consumer>) -> String {
    let shard = next_message(consumer).await;
    let Some(HeaderValue::Text(context)) = shard.headers.get(name::TRACEPARENT) else { panic!("{:?}", shard.headers) };
    context.clone()
}

#[tokio::test]
async fn shards_carry_the_trace_context_of_their_request() {
    let service = Service::start().await;
    let mut producer = Producer::new(&service, "replies").await;
    let queue =
        names::shard_queue("default", forecastle_resources::Priority::Standard, forecastle_resources::SizeClass::S);
    let mut shards = consumer(&service, &queue).await;
    let context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    let body = json!({ "requestType": "note" });
    let request = service.request(reqwest::Method::POST, "/v1/requests").header("traceparent", context).json(&body);
    assert_eq!(request.send().await.unwrap().status(), reqwest::StatusCode::CREATED);
    assert_eq!(released(&mut shards).await, context);

    let in_the_body = v1::SubmitRequest {
        request_type: "note".to_owned(),
        traceparent: context.replace("4bf9", "aaaa"),
        ..Default::default()
    };
    producer.submit(PROTOBUF, in_the_body.encode_to_vec(), "k").await;
    assert!(matches!(producer.hears(PROTOBUF, "k").await, Kind::Accepted(_)));
    assert_eq!(released(&mut shards).await, in_the_body.traceparent);

    // Without one, or with nonsense, the request begins a trace.
    for nonsense in [None, Some("00-nonsense")] {
        let mut request = service.request(reqwest::Method::POST, "/v1/requests").json(&body);
        if let Some(nonsense) = nonsense {
            request = request.header("traceparent", nonsense);
        }
        let accepted: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
        let id = accepted["requestId"].as_str().unwrap().replace('-', "");
        assert!(released(&mut shards).await.starts_with(&format!("00-{id}-")), "{accepted}");
    }
}
