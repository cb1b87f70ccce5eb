//! One run, from the lease to the confirmed completion, in the order that makes it safe:
//!
//! lease → `Claimed` confirmed → offer acknowledged → run → lease given back → `Completed` confirmed.
//!
//! Before the claim is confirmed the broker answers for the shard (the offer is not acknowledged); from then on the
//! ledger does. So a worker that dies at any point here loses nothing.
//!
//! A shard of a deep window, which lasts for milliseconds, is not claimed:
//!
//! lease → run → lease given back → `Completed` confirmed → offer acknowledged.
//!
//! The broker answers for it until the end: if its worker dies it is offered again, and runs again. One that lasts past
//! [`LONGEST_IN_DEEP_WINDOW`] is claimed while it runs, and its offer acknowledged then.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use forecastle_admission::LONGEST_IN_DEEP_WINDOW;
use forecastle_broker::Delivery;
use forecastle_protos::ids::RunId;
use forecastle_protos::v1::{self, Outcome};
use futures::FutureExt as _;
use metrics::{counter, histogram};
use tokio::sync::mpsc;

use crate::adjustment::{Adjuster, Allocation, HeldRecord};
use crate::assignment::Assignment;
use crate::claimer::{DeepOffer, Message};
use crate::clock::now_unix_ms;
use crate::completion::{Source, Times, waited_ms};
use crate::crash_points;
use crate::events::{Events, Undelivered};
use crate::execution::{Ending, Execution, Executor, UsageNow};
use crate::leases::Lease;
use crate::metric_definitions::{CLAIMS, RUN_SECONDS, RUNS, WAITED_SECONDS};
use crate::stop::{StopReason, StopSignal};

/// What runs share.
pub(crate) struct RunEnvironment {
    pub(crate) source: Source,
    pub(crate) events: Events,
    pub(crate) executor: Arc<dyn Executor>,
    /// `None` if what runs hold never changes.
    pub(crate) adjuster: Option<Adjuster>,
    pub(crate) mailbox: mpsc::Sender<Message>,
}

/// A run that is about to be claimed, or not. `O` is what settles its offer.
pub(crate) struct Run<O> {
    pub(crate) id: RunId,
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) offer: O,
    /// `Err` for a unit that this worker cannot run, with the reason: it is claimed only to be answered.
    pub(crate) lease: Result<Lease, String>,
    pub(crate) stop: StopSignal,
    pub(crate) usage: UsageNow,
}

/// How a run went.
struct Work {
    ending: Ending,
    held: HeldRecord,
}

impl Run<Delivery> {
    /// Claims, runs and reports. Whatever happens, the claimer hears at last that the run is gone.
    pub(crate) async fn live(self, environment: Arc<RunEnvironment>) {
        let (id, mailbox) = (self.id, environment.mailbox.clone());
        self.claim_and_run(&environment).await;
        // The claimer ends only after its runs.
        let _ = mailbox.send(Message::Gone(id)).await;
    }

    async fn claim_and_run(self, environment: &RunEnvironment) {
        let Self { id, assignment, offer, lease, stop, usage } = self;
        let mut times = Times { claimed: now_unix_ms(), ..Times::default() };
        if !claim(environment, id, &assignment, times, offer).await {
            return;
        }
        crash_points::CLAIM_AFTER_ACK.hit();
        times.started = now_unix_ms();
        let work = work(environment, id, &assignment, lease, stop, usage).await;
        let completed = ended(environment, id, &assignment, times, work).await;
        match environment.events.send(assignment.headers.ledger, completed).await {
            Ok(()) => crash_points::COMPLETION_AFTER_CONFIRM.hit(),
            Err(error) => not_delivered(id, &assignment, error),
        }
    }
}

impl Run<DeepOffer> {
    /// Runs, reports and acknowledges, without a claim unless it lasts too long.
    pub(crate) async fn live_unclaimed(self, environment: Arc<RunEnvironment>) {
        let (id, mailbox) = (self.id, environment.mailbox.clone());
        self.run_and_answer(&environment).await;
        let _ = mailbox.send(Message::Gone(id)).await;
    }

    async fn run_and_answer(self, environment: &RunEnvironment) {
        let Self { id, assignment, offer, lease, stop, usage } = self;
        let now = now_unix_ms();
        let times = Times { claimed: now, started: now, ..Times::default() };
        let working = work(environment, id, &assignment, lease, stop.clone(), usage);
        tokio::pin!(working);
        let within = tokio::time::timeout(LONGEST_IN_DEEP_WINDOW, &mut working).await;
        let Ok(work) = within else {
            let _ = environment.mailbox.send(Message::Overran(offer.consumer)).await;
            // Not claimed means not wanted, or never heard of: what it does is of no use.
            if !claim(environment, id, &assignment, times, offer.delivery).await {
                stop.stop(StopReason::Cancelled("nobody took its claim".to_owned()));
                working.await;
                return;
            }
            let completed = ended(environment, id, &assignment, times, working.await).await;
            if let Err(error) = environment.events.send(assignment.headers.ledger, completed).await {
                not_delivered(id, &assignment, error);
            }
            return;
        };
        count_claim(&assignment, times);
        let completed = ended(environment, id, &assignment, times, work).await;
        match environment.events.send_first(assignment.headers.ledger, completed).await {
            Ok(()) => {
                // Durable: the broker has what the ledger will know. A crash before the acknowledgement means that the
                // shard runs again, and that its second end changes nothing.
                crash_points::COMPLETION_AFTER_CONFIRM.hit();
                let _ = environment.mailbox.send(Message::Answered(id, Box::new(offer))).await;
            }
            Err(error) => {
                not_delivered(id, &assignment, error);
                let _ = environment.mailbox.send(Message::OutOfOrder(offer.consumer)).await;
                match error {
                    Undelivered::Stopped => offer.delivery.requeue().await,
                    _ => offer.delivery.reject().await,
                };
            }
        }
    }
}

/// Has the ledger answer for the shard, and gives the offer back to the broker as done. False if nobody waits for it.
async fn claim(
    environment: &RunEnvironment,
    id: RunId,
    assignment: &Assignment,
    times: Times,
    delivery: Delivery,
) -> bool {
    let headers = &assignment.headers;
    crash_points::CLAIM_BEFORE_EVENT.hit();
    let claimed = environment.source.claimed(id, assignment, times.claimed);
    match environment.events.send_first(headers.ledger, claimed).await {
        Ok(()) => {}
        Err(Undelivered::Stopped) => {
            delivery.requeue().await;
            return false;
        }
        Err(error) => {
            tracing::warn!(shard = %headers.shard, ledger = %headers.ledger, %error, "a shard is given up");
            delivery.reject().await;
            return false;
        }
    }
    crash_points::CLAIM_AFTER_EVENT.hit();
    let _ = environment.mailbox.send(Message::Claimed(id)).await;
    if !delivery.ack().await {
        // It will be offered again, here or elsewhere; the ledger knows of this run and decides between both.
        tracing::info!(run = %id, shard = %headers.shard, "the channel of a claimed offer was lost; it runs all the same");
    }
    count_claim(assignment, times);
    true
}

fn count_claim(assignment: &Assignment, times: Times) {
    let (priority, class) = (assignment.headers.priority.as_str(), assignment.headers.class.as_str());
    counter!(CLAIMS, "priority" => priority, "class" => class).increment(1);
    let waited = waited_ms(assignment, times.claimed) as f64 / 1000.0;
    histogram!(WAITED_SECONDS, "priority" => priority).record(waited);
}

/// Runs, and gives the lease back.
async fn work(
    environment: &RunEnvironment,
    id: RunId,
    assignment: &Arc<Assignment>,
    lease: Result<Lease, String>,
    stop: StopSignal,
    usage: UsageNow,
) -> Work {
    let lease = match lease {
        Ok(lease) => lease,
        Err(reason) => {
            return Work { ending: Ending::failed(Outcome::Unsupported, reason), held: HeldRecord::default() };
        }
    };
    let allocation = match &environment.adjuster {
        Some(adjuster) => Allocation::managed(adjuster.clone(), &lease, assignment, stop.clone()),
        None => Allocation::fixed(lease.held()),
    };
    let ending = execute(environment, id, assignment, stop, usage, allocation.clone()).await;
    let held = allocation.record();
    // Nothing of the run is left, so what it held is free; that its completion is not confirmed yet keeps it in the load
    // reports.
    drop(lease);
    Work { ending, held }
}

/// It has ended: everybody here hears of it. Answers with what the ledger is to hear.
async fn ended(
    environment: &RunEnvironment,
    id: RunId,
    assignment: &Assignment,
    times: Times,
    Work { ending, held }: Work,
) -> v1::RunEvent {
    let times = Times { ended: now_unix_ms(), ..times };
    let _ = environment.mailbox.send(Message::Ended(id)).await;
    crash_points::RUN_FINISHED.hit();
    let label = outcome_label(ending.outcome);
    counter!(RUNS, "outcome" => label).increment(1);
    histogram!(RUN_SECONDS, "outcome" => label).record(times.ended.saturating_sub(times.started) as f64 / 1000.0);
    let shard = assignment.headers.shard;
    tracing::debug!(run = %id, %shard, unit = assignment.shard.unit, label, ending.error, "a run ended");
    environment.source.completed(id, assignment, times, ending, held)
}

fn not_delivered(id: RunId, assignment: &Assignment, error: Undelivered) {
    tracing::error!(run = %id, shard = %assignment.headers.shard, %error, "a completion was not delivered");
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
