//! The producer: submits over AMQP or over the API, again until it is acknowledged, and remembers what was.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forecastle_broker::{
    Address, Broker, ConsumeOptions, ConsumerEvent, MemoryBroker, Message, Publisher, Queue, QueueKind, Topology,
};
use forecastle_frontend::intake::{Rejection, Submission};
use forecastle_protos::{PROTOBUF, names, v1};
use prost::Message as _;
use tokio::task::JoinSet;

use crate::frontend_role::Counter;

/// Where replies go.
const REPLIES: &str = "simulated-producer";

/// Whose requests they are.
pub const TENANT: &str = "default";

/// The pause before what was not acknowledged is submitted again.
const PAUSE: Duration = Duration::from_secs(1);

/// How long an answer of the API is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// One request of the producer's.
#[derive(Debug)]
pub struct Order {
    /// What is submitted.
    pub body: v1::SubmitRequest,
    /// True if over AMQP.
    pub over_amqp: bool,
    /// True once somebody said that it will not be lost.
    acknowledged: AtomicBool,
    /// Final replies that came.
    finished: Mutex<Vec<v1::Finished>>,
}

impl Order {
    /// A request that is not submitted yet.
    pub fn new(body: v1::SubmitRequest, over_amqp: bool) -> Self {
        Self { body, over_amqp, acknowledged: AtomicBool::new(false), finished: Mutex::default() }
    }

    /// True once somebody said that it will not be lost.
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// The final replies that came.
    pub fn replies(&self) -> Vec<v1::Finished> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The producer, on a link that is never disturbed.
pub struct Producer {
    publisher: Arc<dyn Publisher>,
    /// Reads replies until it is dropped.
    _replies: JoinSet<()>,
}

/// Who stands at the API's counter now.
pub type Door = tokio::sync::watch::Receiver<Option<Counter>>;

impl Producer {
    /// Connects, and listens for replies to `orders`, by whose place in the list they are correlated.
    pub async fn connect(broker: &MemoryBroker, orders: Arc<Vec<Order>>) -> anyhow::Result<Self> {
        let broker = broker.another_connection();
        let kind = QueueKind::Exclusive { max_length: 100_000 };
        let queue = Queue { name: REPLIES.to_owned(), kind, bindings: Vec::new() };
        broker.declare(&forecastle_broker::layout::requests()).await?;
        broker.declare(&Topology { exchanges: Vec::new(), queues: vec![queue] }).await?;
        let options = ConsumeOptions { window: 100, exclusive: false, tag: "producer".to_owned() };
        let mut consumer = broker.consumer(REPLIES, options).await?;
        let publisher = broker.publisher(16).await?;
        let mut replies = JoinSet::new();
        replies.spawn(async move {
            while let Some(event) = consumer.next().await {
                let ConsumerEvent::Delivery(delivery) = event else { continue };
                note(&orders, &delivery.message);
                delivery.ack().await;
            }
        });
        Ok(Self { publisher, _replies: replies })
    }

    /// Submits `orders[number]` until it is acknowledged.
    pub async fn submit(&self, orders: &[Order], number: usize, door: &mut Door) {
        let Some(order) = orders.get(number) else { return };
        loop {
            let acknowledged =
                if order.over_amqp { self.over_amqp(order, number).await } else { over_the_counter(order, door).await };
            if acknowledged {
                order.acknowledged.store(true, Ordering::Relaxed);
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn over_amqp(&self, order: &Order, number: usize) -> bool {
        let message = Message {
            body: order.body.encode_to_vec().into(),
            content_type: Some(PROTOBUF.to_owned()),
            reply_to: Some(REPLIES.to_owned()),
            correlation_id: Some(number.to_string()),
            persistent: true,
            ..Message::default()
        };
        match self.publisher.publish(Address::queue(names::REQUESTS), message).await {
            Ok(confirmation) => confirmation.outcome().await.is_confirmed(),
            Err(_) => false,
        }
    }
}

async fn over_the_counter(order: &Order, door: &mut Door) -> bool {
    let Ok(counter) = door.wait_for(Option::is_some).await.map(|counter| counter.clone()) else { return false };
    let Some(counter) = counter else { return false };
    let submission = Submission { tenant: TENANT.to_owned(), body: order.body.clone(), reply: None };
    match tokio::time::timeout(PATIENCE, counter.intake.submit(submission)).await {
        Ok(Ok(_)) => true,
        Ok(Err(Rejection::Unavailable(_))) | Err(_) => false,
        Ok(Err(error)) => {
            tracing::error!(%error, "a request was refused");
            false
        }
    }
}

fn note(orders: &[Order], message: &Message) {
    let number: Option<usize> = message.correlation_id.as_ref().and_then(|id| id.parse().ok());
    let Some(order) = number.and_then(|number| orders.get(number)) else { return };
    if let Ok(v1::Reply { kind: Some(v1::reply::Kind::Finished(finished)) }) = v1::Reply::decode(&*message.body) {
        order.finished.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
    }
}
