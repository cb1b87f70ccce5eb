//! Exchanges, queues and connections.

use std::time::Duration;

use forecastle_broker::{
    Address, Error, Exchange, ExchangeKind, PublishOutcome, Queue, QueueDepth, QueueKind, Topology,
};
use tokio::time::timeout;

use crate::bench::{Bench, body, consuming, dead_letters_to, fill, publish, quorum, receive, text};

pub(crate) async fn a_fanout_reaches_the_exclusive_queues_of_every_connection(bench: &Bench) {
    let exchange = bench.exchange("fanout", ExchangeKind::Fanout, None).await;
    let other = bench.another_connection().await;
    let listener = |name: &str| Topology {
        exchanges: Vec::new(),
        queues: vec![Queue {
            name: bench.name(name),
            kind: QueueKind::Exclusive { max_length: 100 },
            bindings: vec![(exchange.clone(), String::new())],
        }],
    };
    bench.broker().declare(&listener("mine")).await.unwrap();
    other.declare(&listener("yours")).await.unwrap();
    let error = other.declare(&listener("mine")).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "one connection's queue is not another's: {error}");

    let mut mine = bench.consumer(&bench.name("mine"), 5).await;
    let mut yours = other.consumer(&bench.name("yours"), consuming(5)).await.unwrap();
    let publisher = bench.publisher().await;
    assert!(publish(&publisher, Address::exchange(&exchange, ""), body("to all")).await.is_confirmed());
    assert_eq!(text(&receive(&mut mine).await), "to all");
    assert_eq!(text(&receive(&mut yours).await), "to all");

    // With its connection the queue goes; the other stays.
    other.close().await;
    let depth = |name: &str| {
        let (broker, name) = (bench.broker(), bench.name(name));
        async move { broker.depth(&name).await.unwrap() }
    };
    let gone = async {
        while depth("yours").await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.expect("an exclusive queue goes with its connection");
    assert!(depth("mine").await.is_some());
}

pub(crate) async fn an_exclusive_queue_drops_the_oldest_when_full(bench: &Bench) {
    let queue = bench.queue("q", QueueKind::Exclusive { max_length: 2 }).await;
    let publisher = bench.publisher().await;
    fill(&publisher, &queue, 0..5).await;
    let mut consumer = bench.consumer(&queue, 5).await;
    assert_eq!(text(&receive(&mut consumer).await), "3");
    assert_eq!(text(&receive(&mut consumer).await), "4");
}

pub(crate) async fn depth_counts_ready_messages_and_consumers(bench: &Bench) {
    assert_eq!(bench.broker().depth(&bench.name("nobody")).await.unwrap(), None);
    let queue = bench.queue("q", quorum()).await;
    fill(&bench.publisher().await, &queue, 0..3).await;
    bench.until_depth(&queue, |depth| depth == QueueDepth { ready: 3, consumers: 0 }).await;
    let mut consumer = bench.consumer(&queue, 1).await;
    let delivery = receive(&mut consumer).await;
    bench.until_depth(&queue, |depth| depth == QueueDepth { ready: 2, consumers: 1 }).await;
    drop(delivery);
}

pub(crate) async fn declaring_twice_changes_nothing_and_otherwise_is_refused(bench: &Bench) {
    let kind = |most| QueueKind::Quorum {
        max_length: Some(most),
        delivery_limit: 7,
        dead_letter: Some(dead_letters_to("elsewhere")),
        consumer_timeout: Some(Duration::from_mins(30)),
    };
    let exchange = |kind| Exchange { name: bench.name("x"), kind, alternate: Some(bench.name("none")) };
    let topology = |most, exchange_kind| Topology {
        exchanges: vec![exchange(exchange_kind)],
        queues: vec![Queue {
            name: bench.name("q"),
            kind: kind(most),
            bindings: vec![(bench.name("x"), "key".to_owned())],
        }],
    };
    bench.declare(&topology(10, ExchangeKind::Direct)).await;
    let publisher = bench.publisher().await;
    assert!(publish(&publisher, Address::exchange(bench.name("x"), "key"), body("kept")).await.is_confirmed());
    bench.declare(&topology(10, ExchangeKind::Direct)).await;
    bench.until_depth(&bench.name("q"), |depth| depth.ready == 1).await;

    for (other, object) in [(topology(11, ExchangeKind::Direct), "q"), (topology(10, ExchangeKind::Fanout), "x")] {
        let error = bench.broker().declare(&other).await.unwrap_err();
        assert!(
            matches!(&error, Error::Refused { object: refused, reason }
                if *refused == bench.name(object) && reason.contains("inequivalent arg")),
            "{error}"
        );
    }
    let missing = Queue { name: bench.name("q2"), kind: quorum(), bindings: vec![(bench.name("no"), String::new())] };
    let missing = Topology { exchanges: Vec::new(), queues: vec![missing] };
    bench.will_declare(&missing);
    let error = bench.broker().declare(&missing).await.unwrap_err();
    assert!(error.to_string().contains("no exchange"), "{error}");
    assert!(publish(&publisher, Address::exchange(bench.name("x"), "key"), body("on")).await.is_confirmed());
}

pub(crate) async fn a_deleted_queue_is_gone(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let publisher = bench.publisher().await;
    fill(&publisher, &queue, ["gone"]).await;
    bench.broker().delete_queue(&queue).await.unwrap();
    bench.broker().delete_queue(&queue).await.unwrap();
    assert_eq!(bench.broker().depth(&queue).await.unwrap(), None);
    let outcome = publish(&publisher, Address::queue(&queue), body("lost")).await;
    assert!(matches!(outcome, PublishOutcome::Returned { .. }), "{outcome:?}");
}

pub(crate) async fn closing_the_broker_ends_publishers_and_consumers(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let broker = bench.another_connection().await;
    let publisher = broker.publisher(10).await.unwrap();
    let confirmation = publisher.publish(Address::queue(&queue), body("last")).await.unwrap();
    let mut consumer = broker.consumer(&queue, consuming(1)).await.unwrap();
    let held = receive(&mut consumer).await;
    broker.close().await;
    broker.close().await;
    assert_eq!(confirmation.outcome().await, PublishOutcome::Confirmed);
    assert!(consumer.next().await.is_none() && consumer.next().await.is_none());
    assert!(!held.ack().await);
    assert!(!broker.is_connected());
    let closed = |error: Error| assert!(matches!(error, Error::Closed), "{error}");
    closed(publisher.publish(Address::queue(&queue), body("late")).await.unwrap_err());
    closed(broker.declare(&Topology::default()).await.unwrap_err());
    closed(broker.depth(&queue).await.unwrap_err());
    closed(broker.publisher(1).await.err().expect("closed"));
    closed(broker.consumer(&queue, consuming(1)).await.err().expect("closed"));
    let again = receive(&mut bench.consumer(&queue, 1).await).await;
    assert_eq!((text(&again), again.redelivered), ("last", true));
}
