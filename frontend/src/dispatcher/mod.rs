//! Release: from shards that are ready in the ledger to messages in the queues.
//!
//! # Map
//!
//! - `service`: [`Dispatcher`], the one owner of what waits, and its [`DispatcherHandle`].
//! - `backlog`: what is ready, in the order of release: priority, then tenants in turn, then age. Pure.
//! - `window`: how much of each queue is released ahead of the fleet. Pure.
//! - `patience`: how long a shard waits for a worker that is large enough. Pure.
//! - `outbox`: publishes what the ledger ordered, until the broker has it.
//! - `queue_view`: what is shown of all this. Pure.
//! - `message`: a shard's message.
//!
//! # What always holds
//!
//! An attempt is in the ledger before its message is published. The broker's queues stay short: what may be released
//! is bounded by the window of its queue, so that fairness, cancelling and forecasting act on what waits here.

mod backlog;
mod message;
mod outbox;
mod patience;
mod queue_view;
mod service;
mod window;

pub use outbox::Outbox;
pub use queue_view::QueueView;
pub use service::{Dispatcher, DispatcherHandle};
