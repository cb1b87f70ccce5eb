//! Every metric of the frontend: names and descriptions in one place.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Requests answered at ingress, by `ingress` (http, amqp) and `answer` (created, known, rejected, unavailable).
pub const REQUESTS: &str = "forecastle_frontend_requests_total";
/// Requests that ended, by `state`.
pub const REQUESTS_ENDED: &str = "forecastle_frontend_requests_ended_total";
/// Shards released, by `priority` and `class`.
pub const SHARDS_RELEASED: &str = "forecastle_frontend_shards_released_total";
/// Runs that are expected to start within ten seconds, by `fleet`, `type` and `unit`.
pub const STARTS_EXPECTED: &str = "forecastle_frontend_starts_expected";
/// Attempts that ended with success or were killed for memory, by `type` and `memory` (enough, killed).
pub const ATTEMPTS_SIZED: &str = "forecastle_frontend_attempts_sized_total";
/// The part of attempts that may be killed for memory, by `type`.
pub const KILL_OBJECTIVE: &str = "forecastle_frontend_kill_objective";
/// Shards ready in the ledger and not released.
pub const SHARDS_READY: &str = "forecastle_frontend_shards_ready";
/// Shards released and not claimed.
pub const SHARDS_UNCLAIMED: &str = "forecastle_frontend_shards_unclaimed";
/// Completion events applied, by `outcome`.
pub const EVENTS: &str = "forecastle_frontend_events_total";
/// Completion events that had been applied before.
pub const EVENTS_DUPLICATE: &str = "forecastle_frontend_events_duplicate_total";
/// Messages that belong to nothing, by `queue`.
pub const STRAYS: &str = "forecastle_frontend_strays_total";
/// Changes in one commit of the ledger.
pub const LEDGER_GROUP_SIZE: &str = "forecastle_frontend_ledger_group_size";
/// Time of one commit of the ledger.
pub const LEDGER_COMMIT_SECONDS: &str = "forecastle_frontend_ledger_commit_seconds";
/// Live workers.
pub const WORKERS: &str = "forecastle_frontend_workers";
/// Decisions of the sweeper that changed something, by `kind` (lost, overdue, late, stuck).
pub const DECISIONS: &str = "forecastle_frontend_decisions_total";
/// Runs that were declared lost.
pub const RUNS_LOST: &str = "forecastle_frontend_runs_lost_total";
/// Events in the ledger that ClickHouse does not have yet.
pub const SINK_LAG: &str = "forecastle_frontend_sink_lag_events";
/// Batches that ClickHouse did not take and that are tried again.
pub const SINK_RETRIES: &str = "forecastle_frontend_sink_retries_total";

/// Describes them all to the recorder.
pub fn describe() {
    describe_counter!(REQUESTS, "requests answered at ingress");
    describe_counter!(REQUESTS_ENDED, "requests that ended, by state");
    describe_counter!(SHARDS_RELEASED, "shards released to the queues");
    describe_gauge!(STARTS_EXPECTED, "runs expected to start within ten seconds, by fleet, type and unit");
    describe_counter!(ATTEMPTS_SIZED, "attempts that succeeded or were killed for memory, by type and memory");
    describe_gauge!(KILL_OBJECTIVE, "part of attempts that may be killed for memory, by type");
    describe_gauge!(SHARDS_READY, "shards ready in the ledger and not released");
    describe_gauge!(SHARDS_UNCLAIMED, "shards released and not claimed by a worker");
    describe_counter!(EVENTS, "completion events applied, by outcome");
    describe_counter!(EVENTS_DUPLICATE, "completion events that had been applied before");
    describe_counter!(STRAYS, "messages that belong to nothing in the ledger");
    describe_histogram!(LEDGER_GROUP_SIZE, "changes in one commit of the ledger");
    describe_histogram!(LEDGER_COMMIT_SECONDS, Unit::Seconds, "time of one commit of the ledger");
    describe_gauge!(WORKERS, "workers whose last load report is within the grace");
    describe_counter!(DECISIONS, "decisions of the sweeper that changed something, by kind");
    describe_counter!(RUNS_LOST, "runs that were declared lost");
    describe_gauge!(SINK_LAG, "events in the ledger that ClickHouse does not have yet");
    describe_counter!(SINK_RETRIES, "batches that ClickHouse did not take and that are tried again");
}
