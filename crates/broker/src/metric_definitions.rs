//! Names and descriptions of this crate's metrics.

use metrics::{Unit, describe_counter, describe_gauge};

/// Messages handed to a publisher.
pub const PUBLISHED: &str = "forecastle_broker_published_total";
/// Messages that the broker confirmed.
pub const CONFIRMED: &str = "forecastle_broker_confirmed_total";
/// Messages that no queue took.
pub const RETURNED: &str = "forecastle_broker_returned_total";
/// Messages that the broker refused, for instance because a queue is full.
pub const NACKED: &str = "forecastle_broker_nacked_total";
/// Messages of which nobody knows whether the broker has them, since the connection went first.
pub const UNKNOWN: &str = "forecastle_broker_unknown_total";
/// Messages that are between their publisher and the broker's answer.
pub const IN_FLIGHT: &str = "forecastle_broker_in_flight";
/// Connections that were made anew after a loss, by `connection`.
pub const RECONNECTS: &str = "forecastle_broker_reconnects_total";
/// 1 while the broker blocks a connection (an alarm), else 0, by `connection`.
pub const BLOCKED: &str = "forecastle_broker_blocked";
/// Times that a consumer lost its channel and had to come back.
pub const INTERRUPTIONS: &str = "forecastle_broker_consumer_interruptions_total";

/// Tells the recorder what they mean.
pub fn describe() {
    describe_counter!(PUBLISHED, Unit::Count, "Messages handed to a publisher.");
    describe_counter!(CONFIRMED, Unit::Count, "Messages that the broker confirmed.");
    describe_counter!(RETURNED, Unit::Count, "Messages that no queue took.");
    describe_counter!(NACKED, Unit::Count, "Messages that the broker refused, for instance because a queue is full.");
    describe_counter!(UNKNOWN, Unit::Count, "Messages whose confirm was lost with the connection.");
    describe_gauge!(IN_FLIGHT, Unit::Count, "Messages between their publisher and the broker's answer.");
    describe_counter!(RECONNECTS, Unit::Count, "Connections that were made anew after a loss, by connection.");
    describe_gauge!(BLOCKED, Unit::Count, "1 while the broker blocks a connection (an alarm), by connection.");
    describe_counter!(INTERRUPTIONS, Unit::Count, "Times that a consumer lost its channel and had to come back.");
}
