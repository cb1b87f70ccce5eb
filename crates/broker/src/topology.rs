//! A description of exchanges, queues and bindings. One description serves declaring at start and again after every
//! reconnection.

use std::time::Duration;

/// What an exchange does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// To the queues bound with exactly its routing key.
    Direct,
    /// To every bound queue.
    Fanout,
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Where messages go that no queue takes. (The broker counts them as routed.)
    pub alternate: Option<String>,
}

/// Where rejected and delivery-limited messages of a queue go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The exchange; empty is the default exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
}

/// What kind of queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueKind {
    /// Replicated, durable. At-least-once dead lettering, so it rejects publishes when full.
    Quorum {
        /// The most messages it holds; publishes beyond are nacked.
        max_length: Option<u32>,
        /// Redeliveries after which a message is dead-lettered. Explicit on every broker version.
        delivery_limit: u32,
        /// Where dead letters go.
        dead_letter: Option<DeadLetter>,
        /// How long a delivery may stay unsettled, where the broker takes it as an argument (3.12 and later).
        consumer_timeout: Option<Duration>,
    },
    /// Classic, exclusive to this connection and deleted with it, for fanouts. The oldest is dropped when full.
    Exclusive {
        /// The most messages it holds.
        max_length: u32,
    },
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name. Exclusive queues are named here too: give them a name that is unique.
    pub name: String,
    /// What kind.
    pub kind: QueueKind,
    /// Exchanges it is bound to, each with the routing key (empty for fanouts).
    pub bindings: Vec<(String, String)>,
}

/// Exchanges and queues, in the order in which they are declared: exchanges first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// Exchanges.
    pub exchanges: Vec<Exchange>,
    /// Queues with their bindings.
    pub queues: Vec<Queue>,
}
