//! Traffic for disruption tests: numbered messages through one queue, each published until it is confirmed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use forecastle_broker::{
    Address, Broker, ConsumeOptions, ConsumerEvent, Message, PublishOutcome, Queue, QueueKind, Topology,
};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const DEADLINE: Duration = Duration::from_mins(2);

pub(crate) struct Load {
    confirmed: Arc<AtomicUsize>,
    arrived: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    publishing: JoinHandle<Published>,
    consuming: JoinHandle<Received>,
}

/// What a publisher did.
struct Published {
    /// Messages by number from 0, each confirmed in the end.
    total: usize,
    /// Outcomes after which a message was published again.
    repeated: usize,
}

/// What a consumer saw.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) numbers: BTreeSet<usize>,
    pub(crate) interruptions: usize,
    pub(crate) duplicates: usize,
    /// Duplicates that were not marked as redelivered; each must be one that was published twice.
    pub(crate) unmarked_duplicates: usize,
}

impl Load {
    /// Starts to publish, and to consume what is published.
    pub(crate) async fn start(broker: &Arc<dyn Broker>, queue: &str) -> Self {
        let kind = QueueKind::Quorum {
            max_length: None,
            delivery_limit: 1_000_000,
            dead_letter: None,
            consumer_timeout: None,
        };
        let described = Queue { name: queue.to_owned(), kind, bindings: Vec::new() };
        broker.declare(&Topology { exchanges: Vec::new(), queues: vec![described] }).await.unwrap();
        let (confirmed, ending) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let arrived = Arc::new(AtomicUsize::new(0));
        let (total_is, total) = watch::channel(None);
        let publishing = publish(Arc::clone(broker), queue.to_owned(), Arc::clone(&confirmed), Arc::clone(&ending));
        let publishing = tokio::spawn(async move {
            let published = publishing.await;
            total_is.send_replace(Some(published.total));
            published
        });
        let consuming = tokio::spawn(consume(Arc::clone(broker), queue.to_owned(), Arc::clone(&arrived), total));
        Self { confirmed, arrived, ending, publishing, consuming }
    }

    /// Waits until so many more messages are confirmed and have arrived: both sides work.
    pub(crate) async fn until_more(&self, count: usize) {
        more(&self.confirmed, count, "confirmed").await;
        more(&self.arrived, count, "arrived").await;
    }

    /// Publishes at least `minimum` messages in all, and waits for the end. Every message is confirmed then, and
    /// whatever was confirmed must have arrived.
    pub(crate) async fn finish(self, minimum: usize) -> Received {
        more(&self.confirmed, minimum.saturating_sub(self.confirmed.load(Ordering::SeqCst)), "confirmed").await;
        self.ending.store(true, Ordering::SeqCst);
        let published = timeout(DEADLINE, self.publishing).await.expect("publishing ends in time").unwrap();
        let received = timeout(DEADLINE, self.consuming).await.expect("everything confirmed arrives").unwrap();
        assert_eq!(received.numbers.len(), published.total);
        assert!(
            received.unmarked_duplicates <= published.repeated,
            "{received:?}: only messages that were published again come twice unmarked, {} were",
            published.repeated
        );
        received
    }
}

/// Waits until `counted` has risen by `count`.
async fn more(counted: &AtomicUsize, count: usize, what: &str) {
    let target = counted.load(Ordering::SeqCst) + count;
    let reached = timeout(DEADLINE, async {
        while counted.load(Ordering::SeqCst) < target {
            sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(reached.await.is_ok(), "{what}: {} of {target}", counted.load(Ordering::SeqCst));
}

/// Publishes until told to end.
async fn publish(
    broker: Arc<dyn Broker>,
    queue: String,
    confirmed: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
) -> Published {
    let publisher = broker.publisher(256).await.unwrap();
    let mut published = Published { total: 0, repeated: 0 };
    let mut again = Vec::new();
    let mut waiting = FuturesUnordered::new();
    loop {
        while waiting.len() < 256 {
            let number = match again.pop() {
                Some(number) => number,
                None if ending.load(Ordering::SeqCst) => break,
                None => {
                    published.total += 1;
                    published.total - 1
                }
            };
            let message = Message { body: number.to_string().into(), persistent: true, ..Message::default() };
            let confirmation = publisher.publish(Address::queue(&queue), message).await.unwrap();
            waiting.push(async move { (number, confirmation.outcome().await) });
        }
        match waiting.next().await {
            Some((_, PublishOutcome::Confirmed)) => {
                confirmed.fetch_add(1, Ordering::SeqCst);
            }
            // A quorum queue that has no leader yet refuses.
            Some((number, PublishOutcome::Unknown { .. } | PublishOutcome::Nacked)) => {
                published.repeated += 1;
                again.push(number);
            }
            Some((number, outcome)) => panic!("{number}: {outcome:?}"),
            None => return published,
        }
    }
}

/// Consumes until every message has been seen, once it is known how many there are.
async fn consume(
    broker: Arc<dyn Broker>,
    queue: String,
    arrived: Arc<AtomicUsize>,
    mut total: watch::Receiver<Option<usize>>,
) -> Received {
    let options = ConsumeOptions { window: 200, exclusive: false, tag: "load".to_owned() };
    let mut consumer = broker.consumer(&queue, options).await.unwrap();
    let mut received = Received::default();
    while total.borrow().is_none_or(|total| received.numbers.len() < total) {
        let event = tokio::select! {
            event = consumer.next() => event.expect("the consumer comes back by itself"),
            Ok(()) = total.changed() => continue,
        };
        match event {
            ConsumerEvent::Interrupted => received.interruptions += 1,
            ConsumerEvent::Delivery(delivery) => {
                arrived.fetch_add(1, Ordering::SeqCst);
                let number = std::str::from_utf8(&delivery.message.body).unwrap().parse().unwrap();
                if !received.numbers.insert(number) {
                    received.duplicates += 1;
                    received.unmarked_duplicates += usize::from(!delivery.redelivered);
                }
                delivery.ack().await;
            }
        }
    }
    consumer.close().await;
    received
}
