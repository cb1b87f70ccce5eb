//! RabbitMQ behind the port, by way of lapin. No type of lapin leaves this module.
//!
//! # Map
//!
//! - [`Options`]: where the broker is and how patient to be; part of a service's configuration.
//! - [`RabbitMq`]: connects; two supervised connections, one to publish and one to consume, since an alarm of the
//!   broker blocks connections that publish.
//! - `link`: one connection and the task that owns it. Each life of it is an *epoch*.
//! - `declaration`: the topology, now and again in each epoch.
//! - `publisher`, `confirms`: the confirming publisher and what it knows of messages in flight.
//! - `consumer`: a consumer that comes back.
//! - `message_codec`, `failure`, `backoff`: messages, errors and patience in lapin's terms.
//!
//! # What always holds
//!
//! lapin's own recovery is off: it does not cover channel errors. What was lost is built anew: connection, topology,
//! channels, consumers. A delivery is settled on the channel that brought it or not at all, at most once, and never
//! with `multiple`, which would also settle what is still being worked on.

mod backoff;
mod broker;
mod confirms;
mod consumer;
mod declaration;
mod failure;
mod link;
mod message_codec;
mod options;
mod publisher;

pub use broker::RabbitMq;
pub use options::{AmqpUrl, Options, Tls};
