//! The whole worker against the other side of the wire: over a broker in memory, and over the real RabbitMQ (the one of
//! `FORECASTLE_TEST_AMQP_URL`, or else that of `infra/stack up`).

#![expect(clippy::unwrap_used, reason = "test code throughout, but the lint knows only functions that are tests")]

mod adjusting;
mod bench;
mod cages;
mod capacity;
mod checkpoints;
mod claiming;
mod control;
mod deep_windows;
mod draining;
mod frontend_side;
mod handing_back;
mod isolated_tasks;
mod kernel_limits;
mod launching;
mod limits;
mod program;
mod reference;
mod running;
mod scratch_limits;
mod scripted;
mod typed_tasks;
mod version_2;
mod warm_starts;
