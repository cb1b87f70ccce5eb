//! The broker: a port in no AMQP library's types, RabbitMQ behind it, and a twin in memory.
//!
//! # Map
//!
//! - [`port`]: [`Broker`], [`Publisher`], [`Consumer`], messages, outcomes and errors.
//! - [`topology`]: a description of exchanges and queues; [`layout`]: Forecastle's own.
//! - [`rabbitmq`]: RabbitMQ, supervised. Connections, channels, topology and consumers come back by themselves.
//! - [`memory`]: the twin, with faults on command. One conformance suite (`tests/it`) runs against both.
//! - [`metric_definitions`]: what is counted.
//! - [`durability`]: what makes a message durable, step by step.
//!
//! # What always holds
//!
//! A message that was [`PublishOutcome::Confirmed`] is delivered at least once, whatever breaks, and perhaps more than
//! once. A delivery is settled at most once, on the channel that brought it or not at all. Everything that waits is
//! bounded: by the window of its publisher or consumer.

pub mod layout;
pub mod memory;
pub mod metric_definitions;
pub mod port;
pub mod rabbitmq;
pub mod topology;

mod event_queue;
mod limits;

#[doc = include_str!("../DURABILITY.md")]
pub mod durability {}

pub use memory::MemoryBroker;
pub use port::*;
pub use topology::*;
