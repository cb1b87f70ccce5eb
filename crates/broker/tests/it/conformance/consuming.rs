//! Messages in: windows, settling, interruptions, consumers that end.

use std::time::Duration;

use forecastle_broker::{ConsumeOptions, ConsumerEvent, Error, QueueDepth, QueueKind};
use futures::FutureExt;
use tokio::time::timeout;

use crate::bench::{Bench, consuming, dead_letters_to, fill, interruption, quorum, receive, text};

pub(crate) async fn no_more_than_the_window_is_delivered(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let publisher = bench.publisher().await;
    fill(&publisher, &queue, 0..5).await;
    let mut consumer = bench.consumer(&queue, 2).await;
    let first = receive(&mut consumer).await;
    let second = receive(&mut consumer).await;
    bench.until_depth(&queue, |depth| depth == QueueDepth { ready: 3, consumers: 1 }).await;
    assert!(consumer.next().now_or_never().is_none());
    assert!(second.ack().await);
    assert_eq!(text(&receive(&mut consumer).await), "2");
    bench.until_depth(&queue, |depth| depth.ready == 2).await;
    assert!(consumer.next().now_or_never().is_none());
    assert!(first.ack().await);
    assert_eq!(text(&receive(&mut consumer).await), "3");
}

pub(crate) async fn acknowledging_through_a_delivery_settles_those_before_it_alone(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let publisher = bench.publisher().await;
    fill(&publisher, &queue, 0..5).await;
    let mut consumer = bench.consumer(&queue, 4).await;
    let first = receive(&mut consumer).await;
    let second = receive(&mut consumer).await;
    let third = receive(&mut consumer).await;
    let fourth = receive(&mut consumer).await;
    assert!(second.requeue().await);
    assert!(third.ack_through().await);
    // The first was settled with the third; the fourth was not, and the second is back.
    let mut rest = vec![text(&receive(&mut consumer).await).to_owned(), text(&receive(&mut consumer).await).to_owned()];
    rest.sort_unstable();
    assert_eq!(rest, ["1", "4"]);
    drop((first, fourth));
    consumer.close().await;
    let mut other = bench.consumer(&queue, 4).await;
    let mut left = Vec::new();
    for _ in 0..3 {
        left.push(text(&receive(&mut other).await).to_owned());
    }
    left.sort_unstable();
    assert_eq!(left, ["1", "3", "4"]);
}

pub(crate) async fn requeued_messages_come_again_in_front_and_marked(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let publisher = bench.publisher().await;
    fill(&publisher, &queue, ["a", "b"]).await;
    let mut consumer = bench.consumer(&queue, 1).await;
    let first = receive(&mut consumer).await;
    assert_eq!((text(&first), first.redelivered), ("a", false));
    assert!(first.requeue().await);
    let again = receive(&mut consumer).await;
    assert_eq!((text(&again), again.redelivered), ("a", true));
    assert!(again.ack().await);
    let other = receive(&mut consumer).await;
    assert_eq!((text(&other), other.redelivered), ("b", false));
}

pub(crate) async fn rejected_messages_are_dead_lettered(bench: &Bench) {
    let dead = bench.queue("dead", quorum()).await;
    let kind = |dead_letter| QueueKind::Quorum {
        max_length: None,
        delivery_limit: 1000,
        dead_letter,
        consumer_timeout: Some(Duration::from_hours(1)),
    };
    let queue = bench.queue("q", kind(Some(dead_letters_to(&dead)))).await;
    let without = bench.queue("without", kind(None)).await;
    let publisher = bench.publisher().await;
    fill(&publisher, &without, ["gone"]).await;
    let mut consumer = bench.consumer(&without, 1).await;
    assert!(receive(&mut consumer).await.reject().await);
    fill(&publisher, &queue, ["dead"]).await;
    assert!(receive(&mut bench.consumer(&queue, 1).await).await.reject().await);
    let delivery = receive(&mut bench.consumer(&dead, 5).await).await;
    assert_eq!(text(&delivery), "dead");
    assert!(delivery.ack().await);
    bench.until_depth(&without, |depth| depth.ready == 0).await;
    assert!(consumer.next().now_or_never().is_none());
}

pub(crate) async fn past_the_delivery_limit_a_message_is_dead_lettered(bench: &Bench) {
    let dead = bench.queue("dead", quorum()).await;
    let kind = QueueKind::Quorum {
        max_length: None,
        delivery_limit: 2,
        dead_letter: Some(dead_letters_to(&dead)),
        consumer_timeout: None,
    };
    let queue = bench.queue("q", kind).await;
    fill(&bench.publisher().await, &queue, ["poison"]).await;
    // The first delivery and two more. A consumer that is gone counts on every version of RabbitMQ; a requeue does
    // not on 4.3.
    for time in 0..3 {
        let mut consumer = bench.consumer(&queue, 1).await;
        let delivery = receive(&mut consumer).await;
        assert_eq!((text(&delivery), delivery.redelivered), ("poison", time > 0));
    }
    let delivery = receive(&mut bench.consumer(&dead, 1).await).await;
    assert_eq!(text(&delivery), "poison");
    bench.until_depth(&queue, |depth| depth.ready == 0).await;
}

pub(crate) async fn an_exclusive_consumer_keeps_others_out(bench: &Bench) {
    let queue = bench.queue("q", QueueKind::Exclusive { max_length: 10 }).await;
    let exclusive = || ConsumeOptions { exclusive: true, ..consuming(1) };
    let holder = bench.broker().consumer(&queue, exclusive()).await.unwrap();
    for options in [exclusive(), consuming(1)] {
        let error = bench.broker().consumer(&queue, options).await.err().expect("a refusal");
        assert!(matches!(&error, Error::Refused { object, .. } if *object == queue), "{error}");
    }
    holder.close().await;
    let sharer = bench.consumer(&queue, 1).await;
    let error = bench.broker().consumer(&queue, exclusive()).await.err().expect("a refusal");
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    sharer.close().await;
    let mut next = bench.broker().consumer(&queue, exclusive()).await.unwrap();
    fill(&bench.publisher().await, &queue, ["for the next"]).await;
    assert_eq!(text(&receive(&mut next).await), "for the next");
}

pub(crate) async fn on_a_quorum_queue_an_exclusive_consumer_keeps_nobody_out(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let exclusive = ConsumeOptions { exclusive: true, ..consuming(1) };
    let _first = bench.broker().consumer(&queue, exclusive.clone()).await.unwrap();
    let _second = bench.broker().consumer(&queue, exclusive).await.unwrap();
    bench.until_depth(&queue, |depth| depth.consumers == 2).await;
}

pub(crate) async fn a_consumer_of_no_queue_is_refused(bench: &Bench) {
    let nobody = bench.name("nobody");
    let error = bench.broker().consumer(&nobody, consuming(1)).await.err().expect("a refusal");
    assert!(
        matches!(&error, Error::Refused { object, reason } if *object == nobody && reason.contains("no queue")),
        "{error}"
    );
    assert!(!error.is_retryable());
}

pub(crate) async fn after_an_interruption_settling_does_nothing_and_messages_come_again(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let publisher = bench.publisher().await;
    fill(&publisher, &queue, 0..4).await;
    let mut consumer = bench.consumer(&queue, 3).await;
    let held = receive(&mut consumer).await;
    let settled = receive(&mut consumer).await;
    assert!(settled.ack().await);
    // The rest waits unread in the client, and must not be delivered from there after the interruption.
    bench.until_depth(&queue, |depth| depth.ready == 0).await;
    bench.interrupt(&queue).await;
    interruption(&mut consumer).await;
    assert!(!held.ack().await, "its channel is gone");
    let mut texts = Vec::new();
    for _ in 0..3 {
        let again = receive(&mut consumer).await;
        assert!(again.redelivered, "{}", text(&again));
        texts.push(text(&again).to_owned());
        assert!(again.ack().await);
    }
    texts.sort();
    assert_eq!(texts, ["0", "2", "3"]);
    fill(&publisher, &queue, ["after"]).await;
    assert_eq!(text(&receive(&mut consumer).await), "after");
}

pub(crate) async fn waiting_for_an_event_can_be_given_up_at_any_time(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let publisher = bench.publisher().await;
    let mut consumer = bench.consumer(&queue, 10).await;
    assert!(consumer.next().now_or_never().is_none());
    fill(&publisher, &queue, 0..200).await;
    let mut next = 0;
    while next < 200 {
        if let Ok(event) = timeout(Duration::from_micros(50), consumer.next()).await {
            let Some(ConsumerEvent::Delivery(delivery)) = event else { panic!("{event:?}") };
            assert_eq!(text(&delivery), next.to_string());
            assert!(delivery.ack().await);
            next += 1;
        }
    }
}

pub(crate) async fn closing_a_consumer_hands_back_what_nobody_has_read(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    let publisher = bench.publisher().await;
    fill(&publisher, &queue, 0..5).await;
    let mut consumer = bench.consumer(&queue, 10).await;
    let held = receive(&mut consumer).await;
    bench.until_depth(&queue, |depth| depth.ready == 0).await;
    consumer.close().await;
    // RabbitMQ counts a consumer as long as something is unsettled.
    bench.until_depth(&queue, |depth| depth.ready == 4).await;
    let mut other = bench.consumer(&queue, 10).await;
    for number in 1..5 {
        let delivery = receive(&mut other).await;
        assert_eq!(text(&delivery), number.to_string());
        assert!(delivery.redelivered && delivery.ack().await);
    }
    assert!(held.ack().await, "what was read can still be settled");
    other.close().await;
    bench.until_depth(&queue, |depth| depth == QueueDepth { ready: 0, consumers: 0 }).await;
}

pub(crate) async fn dropping_a_consumer_and_its_deliveries_gives_all_back(bench: &Bench) {
    let queue = bench.queue("q", quorum()).await;
    fill(&bench.publisher().await, &queue, 0..3).await;
    let mut consumer = bench.consumer(&queue, 10).await;
    let held = receive(&mut consumer).await;
    drop(consumer);
    bench.until_depth(&queue, |depth| depth.ready == 2).await;
    drop(held);
    bench.until_depth(&queue, |depth| depth.ready == 3).await;
}
