//! The port: what Forecastle needs of a broker, in no library's types.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use forecastle_protos::headers::Headers;
use tokio::sync::oneshot;

use crate::topology::Topology;

/// A message, on its way in or out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// The body.
    pub body: Bytes,
    /// Application headers.
    pub headers: Headers,
    /// MIME type of the body.
    pub content_type: Option<String>,
    /// The publisher's id of this message.
    pub message_id: Option<String>,
    /// Where a reply goes (a queue's name).
    pub reply_to: Option<String>,
    /// What a reply repeats.
    pub correlation_id: Option<String>,
    /// A short name of what this message is.
    pub kind: Option<String>,
    /// Survives a restart of the broker (in a durable queue).
    pub persistent: bool,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The exchange; empty is the default exchange, which routes to the queue named by the key.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
}

impl Address {
    /// A queue, through the default exchange.
    pub fn queue(name: impl Into<String>) -> Self {
        Self { exchange: String::new(), routing_key: name.into() }
    }

    /// An exchange and a routing key.
    pub fn exchange(exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        Self { exchange: exchange.into(), routing_key: routing_key.into() }
    }
}

/// What became of a published message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishOutcome {
    /// The broker has it: durable, if message and queue are.
    Confirmed,
    /// No queue took it (published as mandatory); the broker does not have it.
    Returned {
        /// The broker's words.
        reason: String,
    },
    /// The broker refused it (a full queue that rejects publishes).
    Nacked,
    /// The connection went before the broker answered: it may have it or not. Publish again.
    Unknown {
        /// What went wrong.
        reason: String,
    },
}

impl PublishOutcome {
    /// True if the broker has the message.
    pub fn is_confirmed(&self) -> bool {
        *self == Self::Confirmed
    }
}

/// The answer to come for one published message. Dropping it is allowed: the message is sent all the same.
#[derive(Debug)]
pub struct Confirmation(pub(crate) oneshot::Receiver<PublishOutcome>);

impl Confirmation {
    /// An answer to come, and what gives it: for implementations of the port outside this crate.
    pub fn to_come() -> (oneshot::Sender<PublishOutcome>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// Waits for the broker's answer.
    pub async fn outcome(self) -> PublishOutcome {
        self.0.await.unwrap_or_else(|_| PublishOutcome::Unknown { reason: "the publisher was closed".to_owned() })
    }
}

/// Publishes with confirms, within a bounded window.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Hands a message to the broker, mandatory. Waits while the window is full, while the broker blocks publishers
    /// (an alarm) and while there is no connection; answers as soon as it is in line behind those before it, with the
    /// confirmation to come. What was not written when a connection is lost is written to the next one.
    ///
    /// Headers that are [`HeaderValue::Other`](forecastle_protos::headers::HeaderValue::Other) are left out. A message
    /// that AMQP cannot carry is [`Error::Message`]. An exchange that does not exist costs the channel, so that this
    /// message and all in flight with it are [`PublishOutcome::Unknown`].
    ///
    /// Messages of one publisher to one address arrive in the order of the calls, unless a connection was lost.
    async fn publish(&self, to: Address, message: Message) -> Result<Confirmation, Error>;
}

/// A received message that is not settled yet.
///
/// It belongs to the channel (the *epoch*) that delivered it. When that channel is gone the broker delivers the
/// message again, and settling this one does nothing.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// True if the broker delivered it before; it may or may not have been acted on.
    pub redelivered: bool,
    /// The exchange it was published to.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    pub(crate) tag: u64,
    pub(crate) epoch: u64,
    pub(crate) settler: Arc<dyn Settler>,
}

/// What is to become of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Done with: the broker forgets it.
    Ack,
    /// Done with, and so is whatever came before it to the same consumer and is not settled yet.
    AckThrough,
    /// Back to the queue.
    Requeue,
    /// Away: to the queue's dead-letter target if it has one, else gone.
    Reject,
}

impl Delivery {
    /// Settles this delivery. Answers `false` if its channel was gone already, so that the broker delivers it again.
    pub async fn settle(self, settlement: Settlement) -> bool {
        let settler = Arc::clone(&self.settler);
        settler.settle(self.epoch, self.tag, settlement).await
    }

    /// [`Settlement::Ack`].
    pub async fn ack(self) -> bool {
        self.settle(Settlement::Ack).await
    }

    /// [`Settlement::AckThrough`].
    pub async fn ack_through(self) -> bool {
        self.settle(Settlement::AckThrough).await
    }

    /// [`Settlement::Requeue`].
    pub async fn requeue(self) -> bool {
        self.settle(Settlement::Requeue).await
    }

    /// [`Settlement::Reject`].
    pub async fn reject(self) -> bool {
        self.settle(Settlement::Reject).await
    }
}

/// Settles deliveries of one consumer.
#[async_trait]
pub(crate) trait Settler: Send + Sync + std::fmt::Debug {
    async fn settle(&self, epoch: u64, tag: u64, settlement: Settlement) -> bool;
}

/// What a consumer hears.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// A message. (Boxed: most of the enum is this.)
    Delivery(Box<Delivery>),
    /// The channel was lost: whatever was delivered and not settled will be delivered again. The consumer comes back
    /// by itself; this is for those who keep deliveries in hand.
    Interrupted,
}

/// Receives from one queue, on a channel of its own.
#[async_trait]
pub trait Consumer: Send {
    /// The next event. Waits through reconnections. `None` once the consumer is closed. Safe to cancel.
    async fn next(&mut self) -> Option<ConsumerEvent>;

    /// Stops receiving. Unsettled deliveries can still be settled; what the client had buffered is handed back, and so
    /// is a delivery that is dropped unsettled later on. Dropping the consumer does the same without waiting.
    async fn close(self: Box<Self>);
}

/// How to consume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumeOptions {
    /// The most unsettled deliveries at a time; at least 1.
    pub window: u16,
    /// Refuse other consumers. Only of exclusive queues: RabbitMQ takes no notice of this on quorum queues (seen on
    /// 3.10.8).
    pub exclusive: bool,
    /// A name for the broker's console.
    pub tag: String,
}

/// The state of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    /// Messages ready for delivery.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
}

/// A broker. Cheap to clone behind an [`Arc`].
#[async_trait]
pub trait Broker: Send + Sync {
    /// Declares everything in `topology`, now and again after every reconnection. Declaring the same twice changes
    /// nothing; declaring an object with other arguments than it has is an error.
    async fn declare(&self, topology: &Topology) -> Result<(), Error>;

    /// A publisher of its own with a window of `window` unconfirmed messages.
    async fn publisher(&self, window: usize) -> Result<Arc<dyn Publisher>, Error>;

    /// A consumer of its own. An exclusive, auto-named queue in the topology is asked for by its declared name.
    async fn consumer(&self, queue: &str, options: ConsumeOptions) -> Result<Box<dyn Consumer>, Error>;

    /// Ready messages and consumers of a queue; `None` if there is no such queue.
    async fn depth(&self, queue: &str) -> Result<Option<QueueDepth>, Error>;

    /// Deletes a queue, with what is in it, and does not declare it again. No error if it does not exist.
    async fn delete_queue(&self, queue: &str) -> Result<(), Error>;

    /// True while there is a working connection.
    fn is_connected(&self) -> bool;

    /// Closes connections in good order. Publishers and consumers end.
    async fn close(&self);
}

/// What can go wrong with a broker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL or the TLS material is unusable. Nothing will mend it but the operator.
    #[error("broker configuration: {0}")]
    Configuration(String),
    /// No connection within the time allowed at start.
    #[error("cannot reach the broker at {address}: {reason}")]
    Unreachable {
        /// Host and port, without credentials.
        address: String,
        /// The last attempt's error.
        reason: String,
    },
    /// The broker refused to declare an object: it exists with other arguments, or is not allowed.
    #[error("the broker refused {object}: {reason}")]
    Refused {
        /// The exchange or queue.
        object: String,
        /// The broker's words.
        reason: String,
    },
    /// The message cannot be sent, on this broker or any: a name, header or body is too long.
    #[error("the message cannot be sent: {0}")]
    Message(String),
    /// The broker was closed with [`Broker::close`].
    #[error("the broker connection was closed")]
    Closed,
    /// Anything else that the broker or the connection answered.
    #[error("broker: {0}")]
    Protocol(String),
}

impl Error {
    /// True if the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Protocol(_))
    }
}
