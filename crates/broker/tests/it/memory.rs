//! The broker in memory: the suite, and its faults.

use std::sync::Arc;

use async_trait::async_trait;
use forecastle_broker::{Address, Broker, ExchangeKind, MemoryBroker, PublishOutcome, QueueKind, Topology};
use futures::FutureExt;

use crate::bench::{self, Bench, Subject, body, fill, interruption, publish, quorum, receive, text};
use crate::conformance::conformance_of;

struct InMemory(MemoryBroker);

#[async_trait]
impl Subject for InMemory {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.0.clone())
    }

    async fn another_connection(&self) -> Arc<dyn Broker> {
        Arc::new(self.0.another_connection())
    }

    async fn interrupt(&self, _queue: &str) {
        self.0.interrupt_consumers();
    }

    async fn remove(&self, _declared: Topology) {}
}

async fn in_memory() -> InMemory {
    InMemory(MemoryBroker::new())
}

mod conforms {
    use super::{conformance_of, in_memory};
    conformance_of!(in_memory());
}

async fn with_faults(test: impl AsyncFnOnce(&MemoryBroker, &Bench)) {
    let broker = MemoryBroker::new();
    bench::run(InMemory(broker.clone()), async |bench| test(&broker, bench).await).await;
}

#[tokio::test]
async fn while_disconnected_publishers_wait_and_afterwards_everything_goes_on() {
    with_faults(async |memory, bench| {
        let queue = bench.queue("q", quorum()).await;
        let exchange = bench.exchange("x", ExchangeKind::Fanout, None).await;
        let own = bench.bound_queue("own", QueueKind::Exclusive { max_length: 9 }, &[(&exchange, "")]).await;
        let publisher = bench.publisher().await;
        let (mut durable, mut exclusive) = (bench.consumer(&queue, 5).await, bench.consumer(&own, 5).await);
        fill(&publisher, &queue, ["held"]).await;
        let held = receive(&mut durable).await;

        memory.disconnect();
        assert!(!memory.is_connected());
        interruption(&mut durable).await;
        interruption(&mut exclusive).await;
        assert!(!held.ack().await);
        let mut waiting = Box::pin(publisher.publish(Address::exchange(&exchange, ""), body("waited")));
        assert!((&mut waiting).now_or_never().is_none());
        let elsewhere = memory.another_connection();
        assert_eq!(elsewhere.depth(&own).await.unwrap(), None, "an exclusive queue goes with its connection");
        assert_eq!(elsewhere.depth(&queue).await.unwrap().unwrap().ready, 1);

        memory.reconnect();
        let again = receive(&mut durable).await;
        assert_eq!((text(&again), again.redelivered), ("held", true));
        assert!(waiting.await.unwrap().outcome().await.is_confirmed());
        assert_eq!(text(&receive(&mut exclusive).await), "waited");
    })
    .await;
}

#[tokio::test]
async fn with_a_lost_confirm_the_outcome_is_unknown_and_the_message_is_there() {
    with_faults(async |memory, bench| {
        let queue = bench.queue("q", quorum()).await;
        let publisher = bench.publisher().await;
        memory.lose_confirms(1);
        let outcome = publish(&publisher, Address::queue(&queue), body("twice")).await;
        assert!(matches!(outcome, PublishOutcome::Unknown { .. }));
        fill(&publisher, &queue, ["twice"]).await;
        bench.until_depth(&queue, |depth| depth.ready == 2).await;
    })
    .await;
}

#[tokio::test]
async fn dead_letters_without_a_home_wait_for_it() {
    with_faults(async |_, bench| {
        let dead = bench.name("dead");
        let kind = QueueKind::Quorum {
            max_length: None,
            delivery_limit: 0,
            dead_letter: Some(bench::dead_letters_to(&dead)),
            consumer_timeout: None,
        };
        let queue = bench.queue("q", kind).await;
        fill(&bench.publisher().await, &queue, ["early"]).await;
        assert!(receive(&mut bench.consumer(&queue, 1).await).await.requeue().await);
        bench.queue("dead", quorum()).await;
        assert_eq!(text(&receive(&mut bench.consumer(&dead, 1).await).await), "early");
    })
    .await;
}
