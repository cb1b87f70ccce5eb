//! The claimer: the one owner of what is in flight. Everybody else sends it messages.
//!
//! The pure [desk](forecastle_admission::Desk) says what to do about offers; here it is done: consumers are opened and
//! closed, offers settled, and a [run](crate::run) is started for each that is claimed. A simulated fleet runs the same
//! desk.
//!
//! What always holds: the sum of all leases is at most the capacity; an attempt runs at most once at a time here; an
//! offer is settled exactly once, or its channel is gone.

use std::sync::Arc;

use anyhow::Context as _;
use forecastle_admission::{Arrival, Desk, DeskOptions, HandBack, LeaseId, QueueIndex, Step, Time};
use forecastle_broker::{Broker, Delivery, Settlement};
use forecastle_protos::ids::RunId;
use metrics::{counter, gauge};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::adjustment::Adjuster;
use crate::assignment::{Assignment, AttemptKey};
use crate::clock::{Clock, now_unix_ms};
use crate::completion::Source;
use crate::events::Events;
use crate::execution::{Executor, UsageNow};
use crate::leases::Leases;
use crate::live_runs::{LiveRun, LiveRuns, Snapshot};
use crate::metric_definitions::{
    OFFERS_HANDED_BACK, OFFERS_HELD, OFFERS_INTERRUPTED, OFFERS_REPEATED, OFFERS_UNREADABLE,
};
use crate::queues::{ConsumerId, ShardConsumers};
use crate::run::{Run, RunEnvironment};
use crate::stop::{StopReason, StopSignal};

/// Messages to the claimer that wait; who sends more waits.
const MAILBOX: usize = 256;

/// What the claimer hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// A queue offers a shard.
    Offered(ConsumerId, Box<Delivery>),
    /// A consumer lost its channel: what it offered is void.
    Interrupted(ConsumerId),
    /// The ledger's queue has the claim of this run.
    Claimed(RunId),
    /// This run has ended, and its lease with it.
    Ended(RunId),
    /// Nothing more is to be said of this run.
    Gone(RunId),
    /// The ledger does not want these runs.
    Cancel(Vec<RunId>, String),
    /// Take no more offers; answered when all that were in hand are back.
    StopClaiming(oneshot::Sender<()>),
    /// Stop every run.
    StopRuns(StopReason),
}

/// Speaks to the claimer. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ClaimerHandle {
    mailbox: mpsc::Sender<Message>,
    snapshot: watch::Receiver<Snapshot>,
}

impl ClaimerHandle {
    /// Stops runs that the ledger does not want; unknown ones are another worker's.
    pub(crate) async fn cancel(&self, runs: Vec<RunId>, reason: String) {
        self.send(Message::Cancel(runs, reason)).await;
    }

    /// Takes no more offers, and waits until all in hand are back in their queues.
    pub(crate) async fn stop_claiming(&self) {
        let (done, stopped) = oneshot::channel();
        self.send(Message::StopClaiming(done)).await;
        let _ = stopped.await;
    }

    /// Tells every run to stop.
    pub(crate) async fn stop_runs(&self, reason: StopReason) {
        self.send(Message::StopRuns(reason)).await;
    }

    /// Waits until no run is left that the ledger has not heard all about.
    pub(crate) async fn idle(&mut self) {
        // An error means that the claimer has ended, with all its runs.
        let _ = self.snapshot.wait_for(|snapshot| snapshot.runs.is_empty()).await;
    }

    /// What is in flight.
    pub(crate) fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.clone()
    }

    async fn send(&self, message: Message) {
        // After the claimer has ended there is nothing that a message could change.
        let _ = self.mailbox.send(message).await;
    }
}

/// How the claimer behaves.
#[derive(Debug, Clone)]
pub(crate) struct ClaimerOptions {
    /// How offers are chosen and kept.
    pub(crate) desk: DeskOptions,
    /// A name for the broker's console.
    pub(crate) tag: String,
    /// The queues that offer.
    pub(crate) queues: Vec<String>,
}

/// What settles an offer, and what it asks for.
struct Offer {
    consumer: ConsumerId,
    delivery: Delivery,
    assignment: Arc<Assignment>,
}

/// The service.
pub(crate) struct Claimer {
    clock: Clock,
    leases: Leases,
    /// `None` once no more offers are taken.
    desk: Option<Desk<AttemptKey, Offer>>,
    consumers: ShardConsumers,
    runs: LiveRuns,
    environment: Arc<RunEnvironment>,
    /// The runs.
    tasks: JoinSet<()>,
    /// Settlements under way.
    chores: JoinSet<()>,
    mailbox: mpsc::Receiver<Message>,
    snapshot: watch::Sender<Snapshot>,
}

impl Claimer {
    /// A claimer that takes offers from now on (they wait in its mailbox until it runs).
    pub(crate) fn new(
        options: ClaimerOptions,
        broker: Arc<dyn Broker>,
        leases: Leases,
        source: Source,
        events: Events,
        executor: Arc<dyn Executor>,
        adjuster: Option<Adjuster>,
    ) -> (Self, ClaimerHandle) {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let environment = Arc::new(RunEnvironment { source, events, executor, adjuster, mailbox: sender.clone() });
        let desk = Desk::new(options.queues.iter().map(|_| 1), options.desk);
        let mut consumers = ShardConsumers::new(options.queues, broker, options.tag, sender.clone());
        desk.windows().for_each(|(queue, window)| consumers.open(queue, window));
        let (snapshot, snapshots) = watch::channel(Snapshot::default());
        let claimer = Self {
            clock: Clock::start(),
            leases,
            desk: Some(desk),
            consumers,
            runs: LiveRuns::default(),
            environment,
            tasks: JoinSet::new(),
            chores: JoinSet::new(),
            mailbox,
            snapshot,
        };
        (claimer, ClaimerHandle { mailbox: sender, snapshot: snapshots })
    }

    /// Claims until `stop`; then offers in hand are left to their channels.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let wake = self.reconsider().map(|wake| self.clock.instant(wake));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(message) = self.mailbox.recv() => self.hear(message),
                () = self.leases.freed() => {}
                Some(ended) = self.tasks.join_next() => ended.context("a run failed in the claimer's own code")?,
                Some(settled) = self.chores.join_next() => settled.context("settling an offer failed")?,
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Offered(consumer, delivery) => self.take(consumer, *delivery),
            Message::Interrupted(consumer) => {
                let void = self.desk.iter_mut().flat_map(|desk| desk.void(|offer| offer.payload.consumer == consumer));
                counter!(OFFERS_INTERRUPTED).increment(void.count() as u64);
            }
            Message::Claimed(run) => {
                for delivery in self.runs.confirm_claim(run) {
                    self.settle(delivery, Settlement::Ack);
                }
            }
            Message::Ended(run) => self.runs.end(run),
            Message::Gone(run) => {
                // Offered again while its claim was not confirmed, and never claimed: somebody else may try.
                for delivery in self.runs.remove(run) {
                    self.settle(delivery, Settlement::Requeue);
                }
            }
            Message::Cancel(runs, reason) => {
                for run in runs {
                    if self.runs.stop(run, StopReason::Cancelled(reason.clone())) {
                        tracing::info!(%run, reason, "a run is cancelled");
                    }
                }
            }
            Message::StopClaiming(done) => self.stop_claiming(done),
            Message::StopRuns(reason) => self.runs.stop_all(&reason),
        }
    }

    /// A new offer.
    fn take(&mut self, consumer: ConsumerId, delivery: Delivery) {
        let assignment = match Assignment::read(&delivery.message) {
            Ok(assignment) => Arc::new(assignment),
            Err(error) => {
                tracing::warn!(%error, queue = delivery.routing_key, "a message is no shard; it goes to the returned queue");
                counter!(OFFERS_UNREADABLE).increment(1);
                return self.settle(delivery, Settlement::Reject);
            }
        };
        let Some(desk) = &mut self.desk else { return self.settle(delivery, Settlement::Requeue) };
        let (key, now) = (assignment.key(), self.clock.now());
        if self.runs.is_live(key) {
            // Its channel was lost before the acknowledgement. Once the claim is confirmed the ledger answers for it.
            counter!(OFFERS_REPEATED).increment(1);
            desk.passed(consumer.queue, key, now);
            if let Some(delivery) = self.runs.keep_repeated(key, delivery) {
                self.settle(delivery, Settlement::Ack);
            }
            return;
        }
        if let Some(reason) = self.environment.executor.refuses(&assignment.shard.unit) {
            tracing::warn!(shard = %key.shard, unit = assignment.shard.unit, reason, "a shard cannot be run here");
            desk.passed(consumer.queue, key, now);
            return self.start(assignment, delivery, Err(reason));
        }
        let arrival = Arrival {
            queue: consumer.queue,
            key,
            claim: assignment.claim(),
            released: self.clock.at_unix_ms(assignment.shard.released_unix_ms),
            payload: Offer { consumer, delivery, assignment },
        };
        desk.take(arrival, now);
    }

    /// Does what can be done now, and answers when to look again at the latest.
    fn reconsider(&mut self) -> Option<Time> {
        let wake = self.do_what_the_desk_says();
        let offers: Vec<_> = self.desk.iter().flat_map(Desk::in_hand).map(|offer| offer.key).collect();
        gauge!(OFFERS_HELD).set(offers.len() as f64);
        let pool = self.leases.pool();
        self.snapshot.send_if_modified(|snapshot| {
            let next = Snapshot { offers, ..self.runs.snapshot(&pool, self.desk.is_none()) };
            let changed = *snapshot != next;
            *snapshot = next;
            changed
        });
        wake
    }

    fn do_what_the_desk_says(&mut self) -> Option<Time> {
        loop {
            let now = self.clock.now();
            let desk = self.desk.as_mut()?;
            match self.leases.with(|pool| desk.next(pool, now)) {
                Step::Claim(Arrival { payload: Offer { delivery, assignment, .. }, .. }, lease) => {
                    let lease = self.leases.guard(lease);
                    self.start(assignment, delivery, Ok(lease));
                }
                Step::HandBack { queue, offers, reason } => self.hand_back(queue, offers, &reason),
                Step::Open { queue, window } => self.consumers.open(queue, window),
                Step::Wait { somebody_waits, preempt, wake } => {
                    self.leases.say_waiting(somebody_waits);
                    for lease in preempt {
                        self.preempt(lease);
                    }
                    return wake;
                }
            }
        }
    }

    /// Stops a borrower that overran while somebody waits for what is guaranteed to it.
    fn preempt(&self, lease: LeaseId) {
        if let Some(run) = self.runs.stop_lease(lease, StopReason::Preempted) {
            tracing::info!(%run, "a run is preempted: it overran on borrowed capacity that its owner waits for");
        }
    }

    fn start(&mut self, assignment: Arc<Assignment>, delivery: Delivery, lease: Result<crate::leases::Lease, String>) {
        let (id, stop, usage) = (RunId::new(), StopSignal::new(), UsageNow::default());
        self.runs.insert(
            id,
            LiveRun::new(Arc::clone(&assignment), lease.as_ref().ok(), stop.clone(), usage.clone(), now_unix_ms()),
        );
        let run = Run { id, assignment, delivery, lease, stop, usage };
        self.tasks.spawn(run.live(Arc::clone(&self.environment)));
    }

    /// Hands offers back, the oldest last, so that it is the first again.
    fn hand_back(&mut self, queue: QueueIndex, offers: Vec<Arrival<AttemptKey, Offer>>, reason: &HandBack) {
        counter!(OFFERS_HANDED_BACK, "reason" => label(reason)).increment(offers.len() as u64);
        for Arrival { key, claim, .. } in &offers {
            tracing::debug!(shard = %key.shard, wants = %claim.vector, ?reason, "an offer is handed back");
        }
        let consumer = self.consumers.take(queue);
        self.chores.spawn(async move {
            // First the consumer, or the broker might offer it here again.
            if let Some(consumer) = consumer {
                consumer.close().await;
            }
            for offer in offers.into_iter().rev() {
                offer.payload.delivery.requeue().await;
            }
        });
    }

    fn settle(&mut self, delivery: Delivery, settlement: Settlement) {
        self.chores.spawn(async move {
            // If its channel is gone it is offered again.
            delivery.settle(settlement).await;
        });
    }

    fn stop_claiming(&mut self, done: oneshot::Sender<()>) {
        let consumers = self.consumers.take_all();
        let offers = self.desk.take().map(Desk::close).unwrap_or_default();
        counter!(OFFERS_HANDED_BACK, "reason" => "drain").increment(offers.len() as u64);
        self.leases.say_waiting(false);
        self.chores.spawn(async move {
            for consumer in consumers {
                consumer.close().await;
            }
            for offer in offers.into_iter().rev() {
                offer.payload.delivery.requeue().await;
            }
            // Who asked may have gone.
            let _ = done.send(());
        });
    }
}

/// Why offers are handed back, in metrics.
fn label(reason: &HandBack) -> &'static str {
    match reason {
        HandBack::Held(_) => "hold",
        HandBack::TooMany => "room",
        HandBack::NeverFits(_) => "never-fits",
    }
}
