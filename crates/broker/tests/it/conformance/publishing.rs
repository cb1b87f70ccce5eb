//! Messages out: routes, outcomes, what arrives.

use std::time::Duration;

use forecastle_broker::{Address, Error, ExchangeKind, Message, PublishOutcome, QueueDepth, QueueKind};
use forecastle_protos::headers::HeaderValue;
use tokio::time::timeout;

use crate::bench::{Bench, body, fill, publish, quorum, receive, text};

pub(crate) async fn what_is_published_arrives_and_is_gone_once_acked(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let publisher = bench.publisher().await;
    assert!(bench.broker().is_connected());
    assert!(publish(&publisher, Address::queue(&queue), body("hello")).await.is_confirmed());
    let mut consumer = bench.consumer(&queue, 5).await;
    let delivery = receive(&mut consumer).await;
    assert_eq!(text(&delivery), "hello");
    assert!(!delivery.redelivered);
    assert_eq!((delivery.exchange.as_str(), delivery.routing_key.as_str()), ("", queue.as_str()));
    assert!(delivery.ack().await);
    consumer.close().await;
    bench.until_depth(&queue, |depth| depth == QueueDepth { ready: 0, consumers: 0 }).await;
}

pub(crate) async fn every_property_and_kind_of_header_arrives_as_it_was(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let headers = [
        ("text", HeaderValue::Text("größer ∞".to_owned())),
        ("empty", HeaderValue::Text(String::new())),
        ("long", HeaderValue::Text("x".repeat(10_000))),
        ("least", HeaderValue::Int(i64::MIN)),
        ("greatest", HeaderValue::Int(i64::MAX)),
        ("float", HeaderValue::Float(-0.1)),
        ("true", HeaderValue::Bool(true)),
        ("false", HeaderValue::Bool(false)),
    ];
    let headers = headers.into_iter().map(|(name, value)| (format!("x-fc-{name}"), value)).collect();
    let sent = Message {
        body: vec![0, 255, 10].into(),
        headers,
        content_type: Some("application/x-protobuf".to_owned()),
        message_id: Some("id-1".to_owned()),
        reply_to: Some("replies".to_owned()),
        correlation_id: Some("c-1".to_owned()),
        kind: Some("shard".to_owned()),
        persistent: true,
    };
    let mut with_a_foreign_header = sent.clone();
    with_a_foreign_header.headers.insert("x-death".to_owned(), HeaderValue::Other("array"));
    let publisher = bench.publisher().await;
    for message in [sent.clone(), with_a_foreign_header, Message::default()] {
        assert!(publish(&publisher, Address::queue(&queue), message).await.is_confirmed());
    }
    let mut consumer = bench.consumer(&queue, 5).await;
    assert_eq!(receive(&mut consumer).await.message, sent);
    assert_eq!(receive(&mut consumer).await.message, sent, "a value without a codec is left out");
    assert_eq!(receive(&mut consumer).await.message, Message::default());
}

pub(crate) async fn bodies_of_no_and_of_many_frames_arrive_whole(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let publisher = bench.publisher().await;
    let large: Vec<u8> = (0..400_000u32).map(|n| (n % 251) as u8).collect();
    for body in [Vec::new(), large.clone(), vec![7]] {
        let message = Message { body: body.into(), ..Message::default() };
        assert!(publish(&publisher, Address::queue(&queue), message).await.is_confirmed());
    }
    let mut consumer = bench.consumer(&queue, 5).await;
    assert!(receive(&mut consumer).await.message.body.is_empty());
    assert!(receive(&mut consumer).await.message.body == large);
    assert_eq!(receive(&mut consumer).await.message.body, vec![7]);
}

pub(crate) async fn messages_arrive_in_the_order_of_publishing(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let publisher = bench.publisher().await;
    fill(&publisher, &queue, 0..1000).await;
    let mut consumer = bench.consumer(&queue, 100).await;
    for number in 0..1000 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(text(&delivery), number.to_string());
        assert!(delivery.ack().await);
    }
}

pub(crate) async fn without_a_route_a_message_is_returned(bench: &Bench) {
    let exchange = bench.exchange("x", ExchangeKind::Direct, None).await;
    let publisher = bench.publisher().await;
    for to in [Address::queue(bench.name("nobody")), Address::exchange(&exchange, "nobody")] {
        let outcome = publish(&publisher, to, body("lost")).await;
        assert_eq!(outcome, PublishOutcome::Returned { reason: "NO_ROUTE".to_owned() });
        assert!(!outcome.is_confirmed());
    }
}

pub(crate) async fn in_a_burst_every_message_gets_its_own_outcome(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let publisher = bench.publisher().await;
    let mut confirmations = Vec::new();
    // Without regularity, so that neighbours differ.
    let is_routed = |number: u32| number.wrapping_mul(2_654_435_761) >> 30 != 0;
    for number in 0..2000 {
        let to = if is_routed(number) { queue.clone() } else { bench.name("nobody") };
        confirmations.push((number, publisher.publish(Address::queue(to), body(number)).await.unwrap()));
    }
    for (number, confirmation) in confirmations {
        let outcome = confirmation.outcome().await;
        assert_eq!(outcome.is_confirmed(), is_routed(number), "{number}: {outcome:?}");
        assert_eq!(matches!(outcome, PublishOutcome::Returned { .. }), !is_routed(number), "{number}: {outcome:?}");
    }
    let mut consumer = bench.consumer(&queue, 100).await;
    for number in (0..2000).filter(|number| is_routed(*number)) {
        let delivery = receive(&mut consumer).await;
        assert_eq!(text(&delivery), number.to_string());
        delivery.ack().await;
    }
}

pub(crate) async fn an_alternate_exchange_takes_what_nothing_else_takes(bench: &Bench) {
    let alternate = bench.exchange("alternate", ExchangeKind::Fanout, None).await;
    let exchange = bench.exchange("x", ExchangeKind::Direct, Some(&alternate)).await;
    let known = bench.bound_queue("known", quorum(), &[(&exchange, "known")]).await;
    let rest = bench.bound_queue("rest", quorum(), &[(&alternate, "")]).await;
    let publisher = bench.publisher().await;
    for key in ["known", "unknown"] {
        assert!(publish(&publisher, Address::exchange(&exchange, key), body(key)).await.is_confirmed());
    }
    assert_eq!(text(&receive(&mut bench.consumer(&known, 1).await).await), "known");
    let delivery = receive(&mut bench.consumer(&rest, 1).await).await;
    assert_eq!((text(&delivery), delivery.routing_key.as_str()), ("unknown", "unknown"));
}

pub(crate) async fn a_full_queue_refuses(bench: &Bench) {
    let kind = QueueKind::Quorum { max_length: Some(5), delivery_limit: 9, dead_letter: None, consumer_timeout: None };
    let queue = bench.queue("q", kind).await;
    let publisher = bench.publisher().await;
    let mut outcomes = Vec::new();
    // RabbitMQ's limit is soft: its channels hear a moment later that the queue is full.
    while outcomes.last() != Some(&PublishOutcome::Nacked) && outcomes.len() < 100 {
        outcomes.push(publish(&publisher, Address::queue(&queue), body("one more")).await);
    }
    assert_eq!(outcomes.last(), Some(&PublishOutcome::Nacked));
    let taken = outcomes.iter().filter(|outcome| outcome.is_confirmed()).count();
    assert!(taken >= 5 && taken + 1 == outcomes.len(), "{outcomes:?}");
    let mut consumer = bench.consumer(&queue, 100).await;
    for _ in 0..taken {
        assert!(receive(&mut consumer).await.ack().await);
    }
    let goes_again =
        async { while !publish(&publisher, Address::queue(&queue), body("room again")).await.is_confirmed() {} };
    timeout(Duration::from_secs(20), goes_again).await.expect("with room in the queue, publishing goes on");
}

pub(crate) async fn an_exchange_that_is_not_there_costs_only_what_is_in_flight(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let publisher = bench.publisher().await;
    let outcome = publish(&publisher, Address::exchange(bench.name("nowhere"), ""), body("lost")).await;
    assert!(matches!(&outcome, PublishOutcome::Unknown { reason } if reason.contains("no exchange")), "{outcome:?}");
    fill(&publisher, &queue, ["next"]).await;
    assert_eq!(text(&receive(&mut bench.consumer(&queue, 1).await).await), "next");
}

pub(crate) async fn what_amqp_cannot_carry_is_refused_at_once(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let publisher = bench.publisher().await;
    let long = "x".repeat(256);
    let header = Message { headers: [(long.clone(), HeaderValue::Int(1))].into(), ..Message::default() };
    let cases = [
        (Address::queue(&long), Message::default()),
        (Address::queue(&queue), Message { message_id: Some(long.clone()), ..Message::default() }),
        (Address::queue(&queue), header),
        (Address::queue(&queue), Message { body: vec![0; 16 * 1024 * 1024 + 1].into(), ..Message::default() }),
    ];
    for (to, message) in cases {
        let error = publisher.publish(to, message).await.unwrap_err();
        assert!(matches!(error, Error::Message(_)) && !error.is_retryable(), "{error}");
    }
    fill(&publisher, &queue, ["still fine"]).await;
}
