//! The twin in memory, for tests and simulations: what Forecastle relies on of RabbitMQ's exchanges, quorum queues and
//! consumers, without a network. It passes the same conformance suite, and adds faults on command.
//!
//! # Map
//!
//! - [`MemoryBroker`]: a connection to the broker in memory, with its publishers and consumers; and the faults.
//! - `routing`: exchanges, queues and bindings; what becomes of a published message.
//! - `delivery`: who gets which message, and what becomes of it.
//!
//! What it leaves out: persistence across a restart, timeouts of unsettled deliveries, consumers that declare their
//! queue again when another connection deletes it, and delays of any kind: every answer is there at once, so the window
//! of a publisher never fills.

mod broker;
mod delivery;
mod routing;

pub use broker::MemoryBroker;
