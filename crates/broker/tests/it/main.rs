//! The port's conformance suite against both brokers, and RabbitMQ under disruption. RabbitMQ is the one of
//! `FORECASTLE_TEST_AMQP_URL`, or else that of `infra/stack up`.

#![expect(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "test code throughout, but the lints know only functions that are tests themselves"
)]

mod bench;
mod conformance;
mod disruption;
mod load;
mod memory;
mod rabbitmq;
mod stack;
mod tls;
