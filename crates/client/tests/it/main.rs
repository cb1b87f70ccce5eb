//! The client against a real RabbitMQ, with the test in the frontend's place on a queue of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod broker;
mod cut;
mod replies;
mod submitting;
mod tls;
