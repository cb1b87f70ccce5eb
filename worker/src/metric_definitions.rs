//! Every metric of the worker: names and descriptions in one place.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Shards claimed, by `priority` and `class`.
pub const CLAIMS: &str = "forecastle_worker_claims_total";
/// Time from a shard's release to its claim, by `priority`.
pub const WAITED_SECONDS: &str = "forecastle_worker_waited_seconds";
/// Offers in hand that are not claimed.
pub const OFFERS_HELD: &str = "forecastle_worker_offers_held";
/// Offers handed back to their queue, by `reason` (hold, room, never-fits, drain).
pub const OFFERS_HANDED_BACK: &str = "forecastle_worker_offers_handed_back_total";
/// Offers that were void because their channel was lost.
pub const OFFERS_INTERRUPTED: &str = "forecastle_worker_offers_interrupted_total";
/// Messages that are no shard and went to the returned queue.
pub const OFFERS_UNREADABLE: &str = "forecastle_worker_offers_unreadable_total";
/// Offers of attempts that this worker runs already.
pub const OFFERS_REPEATED: &str = "forecastle_worker_offers_repeated_total";
/// Runs that ended, by `outcome`.
pub const RUNS: &str = "forecastle_worker_runs_total";
/// Time of runs, by `outcome`.
pub const RUN_SECONDS: &str = "forecastle_worker_run_seconds";
/// Runs claimed or running now.
pub const RUNS_LIVE: &str = "forecastle_worker_runs_live";
/// All there is, by `resource` (cpu in thousandths of a core, memory and scratch in bytes, io in bytes per
/// second).
pub const CAPACITY: &str = "forecastle_worker_capacity";
/// What leases hold, by `resource`.
pub const RESERVED: &str = "forecastle_worker_reserved";
/// Events in one message to a ledger.
pub const EVENT_BATCH: &str = "forecastle_worker_event_batch";
/// Messages with events that were not confirmed and are published again.
pub const EVENT_RETRIES: &str = "forecastle_worker_event_retries_total";
/// Events that the broker has not confirmed yet.
pub const EVENTS_UNCONFIRMED: &str = "forecastle_worker_events_unconfirmed";
/// Processes of runs that were started, by `kind` (command, task) and `start`: warm if what they need was ready.
pub const STARTS: &str = "forecastle_worker_starts_total";
/// Starts that are prepared: what is ready for runs that are expected.
pub const WARM_SLOTS: &str = "forecastle_worker_warm_slots";
/// Load reports sent.
pub const REPORTS: &str = "forecastle_worker_reports_total";
/// Control messages heard, by `kind` (cancel, set-shares, drain, report-now, discard-outputs, demand, unreadable).
pub const CONTROLS: &str = "forecastle_worker_control_messages_total";
/// What was removed that others left, by `what` (dead-workers, outputs).
pub const SWEPT: &str = "forecastle_worker_swept_total";

/// Changes of leases and limits while runs last, by `change` (grow, shrink, throttle, unthrottle, stop) and `reason`.
pub const ADJUSTMENTS: &str = "forecastle_worker_adjustments_total";
/// Changes that the kernel refused, by `change`.
pub const ADJUSTMENT_FAILURES: &str = "forecastle_worker_adjustment_failures_total";

/// Describes them all to the recorder.
pub fn describe() {
    describe_counter!(CLAIMS, "shards claimed, by priority and class");
    describe_histogram!(WAITED_SECONDS, Unit::Seconds, "time from a shard's release to its claim");
    describe_gauge!(OFFERS_HELD, "offers in hand that are not claimed");
    describe_counter!(OFFERS_HANDED_BACK, "offers handed back to their queue, by reason");
    describe_counter!(OFFERS_INTERRUPTED, "offers that were void because their channel was lost");
    describe_counter!(OFFERS_UNREADABLE, "messages that are no shard and went to the returned queue");
    describe_counter!(OFFERS_REPEATED, "offers of attempts that this worker runs already");
    describe_counter!(RUNS, "runs that ended, by outcome");
    describe_histogram!(RUN_SECONDS, Unit::Seconds, "time of runs, by outcome");
    describe_gauge!(RUNS_LIVE, "runs claimed or running now");
    describe_gauge!(CAPACITY, "all there is, by resource");
    describe_gauge!(RESERVED, "what leases hold, by resource");
    describe_histogram!(EVENT_BATCH, "events in one message to a ledger");
    describe_counter!(EVENT_RETRIES, "messages with events that were not confirmed and are published again");
    describe_gauge!(EVENTS_UNCONFIRMED, "events that the broker has not confirmed yet");
    describe_counter!(STARTS, "processes of runs that were started, by kind and whether what they need was ready");
    describe_gauge!(WARM_SLOTS, "starts that are prepared for runs that are expected");
    describe_counter!(REPORTS, "load reports sent");
    describe_counter!(SWEPT, "folders of dead workers and outputs of runs that did not win, removed");
    describe_counter!(ADJUSTMENTS, "changes of leases and limits while runs last, by change and reason");
    describe_counter!(ADJUSTMENT_FAILURES, "changes of limits that the kernel refused, by change");
    describe_counter!(CONTROLS, "control messages heard, by kind");
}
