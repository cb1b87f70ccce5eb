//! What a conformance test works with: a broker, names of its own, and the removal of what it declared.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use forecastle_broker::{
    Address, Broker, ConsumeOptions, Consumer, ConsumerEvent, DeadLetter, Delivery, Exchange, ExchangeKind, Message,
    PublishOutcome, Publisher, Queue, QueueDepth, QueueKind, Topology,
};
use futures::FutureExt;
use tokio::time::{sleep, timeout};

/// After this a test has failed.
const DEADLINE: Duration = Duration::from_mins(1);

/// How long a single delivery may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker under test.
#[async_trait]
pub(crate) trait Subject: Send + Sync {
    fn broker(&self) -> Arc<dyn Broker>;
    /// Another connection to the same broker.
    async fn another_connection(&self) -> Arc<dyn Broker>;
    /// Makes the consumers of a queue lose their channels.
    async fn interrupt(&self, queue: &str);
    /// Removes what a test declared.
    async fn remove(&self, declared: Topology);
}

pub(crate) struct Bench {
    subject: Box<dyn Subject>,
    prefix: String,
    declared: Mutex<Topology>,
}

/// Runs `test` and removes what it declared, also if it fails.
pub(crate) async fn run(subject: impl Subject + 'static, test: impl AsyncFnOnce(&Bench)) {
    let prefix = format!("test.{}", uuid::Uuid::now_v7());
    let bench = Bench { subject: Box::new(subject), prefix, declared: Mutex::default() };
    let outcome = AssertUnwindSafe(timeout(DEADLINE, test(&bench))).catch_unwind().await;
    let declared = std::mem::take(&mut *bench.declared.lock().unwrap());
    bench.subject.remove(declared).await;
    match outcome {
        Ok(ended) => ended.expect("the test ends in time"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A quorum queue without limits that matter.
pub(crate) fn quorum() -> QueueKind {
    QueueKind::Quorum { max_length: None, delivery_limit: 1000, dead_letter: None, consumer_timeout: None }
}

pub(crate) fn body(text: impl ToString) -> Message {
    Message { body: text.to_string().into(), persistent: true, ..Message::default() }
}

pub(crate) fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.message.body).unwrap()
}

impl Bench {
    pub(crate) fn broker(&self) -> Arc<dyn Broker> {
        self.subject.broker()
    }

    pub(crate) async fn another_connection(&self) -> Arc<dyn Broker> {
        self.subject.another_connection().await
    }

    pub(crate) async fn interrupt(&self, queue: &str) {
        self.subject.interrupt(queue).await;
    }

    /// A name that no other test has.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Has `topology` removed in the end.
    pub(crate) fn will_declare(&self, topology: &Topology) {
        let mut declared = self.declared.lock().unwrap();
        declared.exchanges.extend(topology.exchanges.iter().cloned());
        declared.queues.extend(topology.queues.iter().cloned());
    }

    pub(crate) async fn declare(&self, topology: &Topology) {
        self.will_declare(topology);
        self.broker().declare(topology).await.unwrap();
    }

    /// Declares a queue of this kind and answers its name.
    pub(crate) async fn queue(&self, name: &str, kind: QueueKind) -> String {
        self.bound_queue(name, kind, &[]).await
    }

    /// Declares a queue bound to exchanges with routing keys.
    pub(crate) async fn bound_queue(&self, name: &str, kind: QueueKind, bindings: &[(&str, &str)]) -> String {
        let name = self.name(name);
        let bindings = bindings.iter().map(|(exchange, key)| ((*exchange).to_owned(), (*key).to_owned())).collect();
        let queue = Queue { name: name.clone(), kind, bindings };
        self.declare(&Topology { exchanges: Vec::new(), queues: vec![queue] }).await;
        name
    }

    pub(crate) async fn exchange(&self, name: &str, kind: ExchangeKind, alternate: Option<&str>) -> String {
        let name = self.name(name);
        let exchange = Exchange { name: name.clone(), kind, alternate: alternate.map(str::to_owned) };
        self.declare(&Topology { exchanges: vec![exchange], queues: Vec::new() }).await;
        name
    }

    pub(crate) async fn publisher(&self) -> Arc<dyn Publisher> {
        self.broker().publisher(256).await.unwrap()
    }

    pub(crate) async fn consumer(&self, queue: &str, window: u16) -> Box<dyn Consumer> {
        self.broker().consumer(queue, consuming(window)).await.unwrap()
    }

    /// Polls the depth of a queue until it is as wanted.
    pub(crate) async fn until_depth(&self, queue: &str, wanted: impl Fn(QueueDepth) -> bool) {
        let mut last = None;
        let reached = timeout(PATIENCE, async {
            loop {
                last = self.broker().depth(queue).await.unwrap();
                if last.is_some_and(&wanted) {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(reached.await.is_ok(), "the depth of {queue} stays {last:?}");
    }
}

pub(crate) fn consuming(window: u16) -> ConsumeOptions {
    ConsumeOptions { window, exclusive: false, tag: "test".to_owned() }
}

pub(crate) fn dead_letters_to(queue: &str) -> DeadLetter {
    DeadLetter { exchange: String::new(), routing_key: queue.to_owned() }
}

/// Publishes one message and waits for its outcome.
pub(crate) async fn publish(publisher: &Arc<dyn Publisher>, to: Address, message: Message) -> PublishOutcome {
    let confirmation = publisher.publish(to, message).await.unwrap();
    timeout(PATIENCE, confirmation.outcome()).await.expect("the broker answers")
}

/// Publishes texts to a queue, all of which must be confirmed.
pub(crate) async fn fill(publisher: &Arc<dyn Publisher>, queue: &str, texts: impl IntoIterator<Item = impl ToString>) {
    let mut confirmations = Vec::new();
    for text in texts {
        confirmations.push(publisher.publish(Address::queue(queue), body(text)).await.unwrap());
    }
    for confirmation in confirmations {
        let outcome = timeout(PATIENCE, confirmation.outcome()).await.expect("the broker answers");
        assert_eq!(outcome, PublishOutcome::Confirmed);
    }
}

/// The next delivery; anything else is a failure.
pub(crate) async fn receive(consumer: &mut Box<dyn Consumer>) -> Delivery {
    match timeout(PATIENCE, consumer.next()).await.expect("a delivery in time") {
        Some(ConsumerEvent::Delivery(delivery)) => *delivery,
        other => panic!("instead of a delivery: {other:?}"),
    }
}

/// The interruption that must be next.
pub(crate) async fn interruption(consumer: &mut Box<dyn Consumer>) {
    match timeout(PATIENCE, consumer.next()).await.expect("an interruption in time") {
        Some(ConsumerEvent::Interrupted) => {}
        other => panic!("instead of an interruption: {other:?}"),
    }
}
