//! Integration tests of the frontend.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod amqp;
mod failures;
mod http;
mod ledger;
mod program;
mod reference;
mod service;
mod sweeping;
