//! RabbitMQ broken under load, each time in a stack of the test's own: nothing that was confirmed is lost, and
//! consumption resumes by itself.

use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::rabbitmq::{Options, RabbitMq};
use forecastle_broker::{Address, Broker};
use tokio::time::timeout;

use crate::bench::{body, consuming, fill, receive};
use crate::load::Load;
use crate::stack::{ONE_AT_A_TIME, OwnStack};

async fn connect(stack: &OwnStack) -> Arc<dyn Broker> {
    let options = Options { reconnect_interval_seconds: 1, ..Options::to(stack.url().await) };
    RabbitMq::connect(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_connections_are_closed_under_load_nothing_confirmed_is_lost() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let stack = OwnStack::start(5790).await;
    let broker = connect(&stack).await;
    let load = Load::start(&broker, "load").await;
    for _ in 0..3 {
        load.until_more(2_000).await;
        stack.script(&["rabbitmqctl", "close_all_connections", "by a test"]).await;
    }
    let received = load.finish(20_000).await;
    assert!(received.interruptions >= 3, "{} interruptions", received.interruptions);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_broker_is_killed_and_restarted_under_load_nothing_confirmed_is_lost() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let stack = OwnStack::start(5800).await;
    let broker = connect(&stack).await;
    let load = Load::start(&broker, "load").await;
    // RabbitMQ writes the registration of a new quorum queue to disk half a second late or more, and a queue whose
    // registration is lost starts empty or not at all. This test is about messages, so the registration is written now.
    stack.script(&["rabbitmqctl", "eval", "ok = dets:sync(ra_directory_reverse)."]).await;
    load.until_more(3_000).await;
    stack.script(&["kill-rabbitmq"]).await;
    let lost = timeout(Duration::from_secs(10), async {
        while broker.is_connected() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    lost.await.expect("a killed broker is noticed");
    stack.script(&["start-rabbitmq"]).await;
    load.until_more(3_000).await;
    stack.script(&["restart-rabbitmq"]).await;
    let received = load.finish(20_000).await;
    assert!(received.interruptions >= 2, "{} interruptions", received.interruptions);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_blocks_publishers_they_wait_and_consumers_go_on() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let stack = OwnStack::start(5810).await;
    let broker = connect(&stack).await;
    let topology = forecastle_broker::layout::requests();
    broker.declare(&topology).await.unwrap();
    let queue = topology.queues[0].name.as_str();
    let publisher = broker.publisher(1000).await.unwrap();
    fill(&publisher, queue, 0..100).await;

    stack.script(&["rabbitmqctl", "set_vm_memory_high_watermark", "0"]).await;
    // The broker blocks a connection when it next publishes; then the next call of `publish` waits.
    let mut sent = Vec::new();
    let blocked = timeout(Duration::from_secs(20), async {
        while let Ok(confirmation) =
            timeout(Duration::from_secs(1), publisher.publish(Address::queue(queue), body("in the alarm"))).await
        {
            sent.push(confirmation.unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    blocked.await.expect("publishing waits while the broker blocks it");
    assert!(broker.is_connected());

    let mut consumer = broker.consumer(queue, consuming(10)).await.unwrap();
    for _ in 0..100 {
        assert!(receive(&mut consumer).await.ack().await);
    }

    let waiting = tokio::spawn({
        let (publisher, queue) = (Arc::clone(&publisher), queue.to_owned());
        async move { publisher.publish(Address::queue(queue), body("waited")).await.unwrap().outcome().await }
    });
    stack.script(&["rabbitmqctl", "set_vm_memory_high_watermark", "0.4"]).await;
    let outcome = timeout(Duration::from_secs(20), waiting).await.expect("the waiting message goes out").unwrap();
    assert!(outcome.is_confirmed());
    let count = sent.len() + 1;
    for confirmation in sent {
        assert!(confirmation.outcome().await.is_confirmed());
    }
    for _ in 0..count {
        assert!(receive(&mut consumer).await.ack().await);
    }
    broker.close().await;
}
