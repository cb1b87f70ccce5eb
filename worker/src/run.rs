//! One run, from the lease to the confirmed completion, in the order that makes it safe:
//!
//! lease → `Claimed` confirmed → offer acknowledged → run → lease given back → `Completed` confirmed.
//!
//! Before the claim is confirmed the broker answers for the shard (the offer is not acknowledged); from then on the
//! ledger does. So a worker that dies at any point here loses nothing.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use forecastle_broker::Delivery;
use forecastle_protos::ids::RunId;
use forecastle_protos::v1::Outcome;
use futures::FutureExt as _;
use metrics::{counter, histogram};
use tokio::sync::mpsc;

use crate::adjustment::{Adjuster, Allocation, HeldRecord};
use crate::assignment::Assignment;
use crate::claimer::Message;
use crate::clock::now_unix_ms;
use crate::completion::{Source, Times, waited_ms};
use crate::crash_points;
use crate::events::{Events, Undelivered};
use crate::execution::{Ending, Execution, Executor, UsageNow};
use crate::leases::Lease;
use crate::metric_definitions::{CLAIMS, RUN_SECONDS, RUNS, WAITED_SECONDS};
use crate::stop::StopSignal;

/// What runs share.
pub(crate) struct RunEnvironment {
    pub(crate) source: Source,
    pub(crate) events: Events,
    pub(crate) executor: Arc<dyn Executor>,
    /// `None` if what runs hold never changes.
    pub(crate) adjuster: Option<Adjuster>,
    pub(crate) mailbox: mpsc::Sender<Message>,
}

/// A run that is about to be claimed.
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) delivery: Delivery,
    /// `Err` for a unit that this worker cannot run, with the reason: it is claimed only to be answered.
    pub(crate) lease: Result<Lease, String>,
    pub(crate) stop: StopSignal,
    pub(crate) usage: UsageNow,
}

impl Run {
    /// Claims, runs and reports. Whatever happens, the claimer hears at last that the run is gone.
    pub(crate) async fn live(self, environment: Arc<RunEnvironment>) {
        let (id, mailbox) = (self.id, environment.mailbox.clone());
        self.claim_and_run(&environment).await;
        // The claimer ends only after its runs.
        let _ = mailbox.send(Message::Gone(id)).await;
    }

    async fn claim_and_run(self, environment: &RunEnvironment) {
        let Self { id, assignment, delivery, lease, stop, usage } = self;
        let headers = &assignment.headers;
        let mut times = Times { claimed: now_unix_ms(), ..Times::default() };
        crash_points::CLAIM_BEFORE_EVENT.hit();
        let claimed = environment.source.claimed(id, &assignment, times.claimed);
        match environment.events.send(headers.ledger, claimed).await {
            Ok(()) => {}
            Err(Undelivered::Stopped) => {
                delivery.requeue().await;
                return;
            }
            Err(error) => {
                tracing::warn!(shard = %headers.shard, ledger = %headers.ledger, %error, "a shard is given up");
                delivery.reject().await;
                return;
            }
        }
        crash_points::CLAIM_AFTER_EVENT.hit();
        let _ = environment.mailbox.send(Message::Claimed(id)).await;
        if !delivery.ack().await {
            // It will be offered again, here or elsewhere; the ledger knows of this run and decides between both.
            tracing::info!(run = %id, shard = %headers.shard, "the channel of a claimed offer was lost; it runs all the same");
        }
        crash_points::CLAIM_AFTER_ACK.hit();
        let (priority, class) = (headers.priority.as_str(), headers.class.as_str());
        counter!(CLAIMS, "priority" => priority, "class" => class).increment(1);
        let waited = waited_ms(&assignment, times.claimed) as f64 / 1000.0;
        histogram!(WAITED_SECONDS, "priority" => priority).record(waited);

        times.started = now_unix_ms();
        let (ending, held) = match lease {
            Err(reason) => (Ending::failed(Outcome::Unsupported, reason), HeldRecord::default()),
            Ok(lease) => {
                let allocation = match &environment.adjuster {
                    Some(adjuster) => Allocation::managed(adjuster.clone(), &lease, &assignment, stop.clone()),
                    None => Allocation::fixed(lease.held()),
                };
                let ending = execute(environment, id, &assignment, stop, usage, allocation.clone()).await;
                let held = allocation.record();
                // Nothing of the run is left, so what it held is free; that its completion is not confirmed yet keeps
                // it in the load reports.
                drop(lease);
                (ending, held)
            }
        };
        times.ended = now_unix_ms();
        let _ = environment.mailbox.send(Message::Ended(id)).await;
        crash_points::RUN_FINISHED.hit();
        let outcome = ending.outcome;
        let label = outcome_label(outcome);
        counter!(RUNS, "outcome" => label).increment(1);
        histogram!(RUN_SECONDS, "outcome" => label).record(times.ended.saturating_sub(times.started) as f64 / 1000.0);
        tracing::debug!(run = %id, shard = %headers.shard, unit = assignment.shard.unit, label, ending.error, "a run ended");
        let completed = environment.source.completed(id, &assignment, times, ending, held);
        match environment.events.send(headers.ledger, completed).await {
            Ok(()) => crash_points::COMPLETION_AFTER_CONFIRM.hit(),
            Err(error) => {
                tracing::error!(run = %id, shard = %headers.shard, label, %error, "a completion was not delivered");
            }
        }
    }
}

async fn execute(
    environment: &RunEnvironment,
    run: RunId,
    assignment: &Arc<Assignment>,
    stop: StopSignal,
    usage: UsageNow,
    allocation: Allocation,
) -> Ending {
    let limit = assignment.time_limit(now_unix_ms());
    if limit.is_some_and(|limit| limit.is_zero()) {
        return Ending::failed(Outcome::Timeout, "the request's deadline had passed before the run could start");
    }
    if let Some(reason) = stop.reason() {
        return Ending::failed(reason.outcome(), reason.explanation());
    }
    let execution = Execution { run, assignment: Arc::clone(assignment), limit, stop, usage, allocation };
    // A fault of the executor fails this run alone.
    AssertUnwindSafe(environment.executor.execute(execution)).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(%run, unit = assignment.shard.unit, "the executor of runs panicked");
        Ending::failed(Outcome::TaskError, "the worker failed while it ran this; its log says more")
    })
}

/// The name of an outcome in metrics.
fn outcome_label(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Unspecified => "unspecified",
        Outcome::Succeeded => "succeeded",
        Outcome::TaskError => "task-error",
        Outcome::PermanentError => "permanent-error",
        Outcome::OutOfMemory => "out-of-memory",
        Outcome::Timeout => "timeout",
        Outcome::WorkerLost => "worker-lost",
        Outcome::Preempted => "preempted",
        Outcome::Drained => "drained",
        Outcome::Cancelled => "cancelled",
        Outcome::Unsupported => "unsupported",
    }
}
