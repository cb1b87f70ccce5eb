//! The claimer: the one owner of what is in flight. Everybody else sends it messages.
//!
//! It holds at most one offer a queue, chooses among them with the pure policy of `forecastle-admission`, and starts a
//! [run](crate::run) for each that it claims. An offer that cannot be claimed within the hold is handed back, and so is
//! whatever does not belong to the first [`ClaimerOptions::most_held`]: no worker hides work from an idle one.
//!
//! What always holds: the sum of all leases is at most the capacity; an attempt runs at most once at a time here; an
//! offer is settled exactly once, or its channel is gone.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use forecastle_admission::{Claim, ClaimPolicy, Decision, Offer as PolicyOffer, Time, Waiting};
use forecastle_broker::{Broker, Delivery, Settlement};
use forecastle_protos::ids::RunId;
use forecastle_resources::Resource;
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
use crate::queues::{QueueIndex, Remembered, ShardQueues};
use crate::run::{Run, RunEnvironment};
use crate::stop::{StopReason, StopSignal};

/// How often it is looked for borrowers that overrun, while somebody waits.
const OVERRUNS_EVERY: Duration = Duration::from_secs(1);

/// Messages to the claimer that wait; who sends more waits.
const MAILBOX: usize = 256;

/// What the claimer hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// A queue offers a shard.
    Offered(QueueIndex, Box<Delivery>),
    /// The channel of a queue was lost: what it offered is void.
    Interrupted(QueueIndex),
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
    /// How long an offer that cannot be claimed is kept.
    pub(crate) hold: Duration,
    /// The most offers that are kept without being claimed.
    pub(crate) most_held: usize,
    /// A name for the broker's console.
    pub(crate) tag: String,
    /// The queues that offer.
    pub(crate) queues: Vec<String>,
}

/// An offer in hand.
struct Offer {
    queue: QueueIndex,
    delivery: Delivery,
    assignment: Arc<Assignment>,
    claim: Claim,
    released: Time,
    /// When it was first offered here, whether it was handed back since or not.
    offered: Time,
    held_until: Instant,
}

/// Who takes part in the choice.
#[derive(Debug, Clone, Copy)]
enum Candidate {
    /// An offer in hand, by its place.
    InHand(usize),
    /// What a parked queue offered.
    Remembered(QueueIndex),
}

/// The service.
pub(crate) struct Claimer {
    hold: Duration,
    most_held: usize,
    policy: ClaimPolicy,
    clock: Clock,
    leases: Leases,
    /// `None` once no more offers are taken.
    queues: Option<ShardQueues>,
    offers: Vec<Offer>,
    runs: LiveRuns,
    environment: Arc<RunEnvironment>,
    /// The runs.
    tasks: JoinSet<()>,
    /// Settlements under way.
    chores: JoinSet<()>,
    mailbox: mpsc::Receiver<Message>,
    snapshot: watch::Sender<Snapshot>,
    /// True while some candidate waits, so that overruns matter.
    somebody_waits: bool,
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
        let queues = ShardQueues::open(options.queues, broker, options.tag, options.hold, sender.clone());
        let (snapshot, snapshots) = watch::channel(Snapshot::default());
        let claimer = Self {
            hold: options.hold,
            most_held: options.most_held,
            policy: ClaimPolicy::default(),
            clock: Clock::start(),
            leases,
            queues: Some(queues),
            offers: Vec::new(),
            runs: LiveRuns::default(),
            environment,
            tasks: JoinSet::new(),
            chores: JoinSet::new(),
            mailbox,
            snapshot,
            somebody_waits: false,
        };
        (claimer, ClaimerHandle { mailbox: sender, snapshot: snapshots })
    }

    /// Claims until `stop`; then offers in hand are left to their channels.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            self.reconsider();
            let wake = self.next_wake();
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
            Message::Offered(queue, delivery) => self.take(queue, *delivery),
            Message::Interrupted(queue) => {
                let before = self.offers.len();
                self.offers.retain(|offer| offer.queue != queue);
                counter!(OFFERS_INTERRUPTED).increment((before - self.offers.len()) as u64);
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
    fn take(&mut self, queue: QueueIndex, delivery: Delivery) {
        let assignment = match Assignment::read(&delivery.message) {
            Ok(assignment) => Arc::new(assignment),
            Err(error) => {
                tracing::warn!(%error, queue = delivery.routing_key, "a message is no shard; it goes to the returned queue");
                counter!(OFFERS_UNREADABLE).increment(1);
                return self.settle(delivery, Settlement::Reject);
            }
        };
        let Some(queues) = &mut self.queues else { return self.settle(delivery, Settlement::Requeue) };
        let key = assignment.key();
        let now = self.clock.now();
        let offered = queues.offered(queue, key, now);
        if self.runs.is_live(key) {
            // Its channel was lost before the acknowledgement. Once the claim is confirmed the ledger answers for it.
            counter!(OFFERS_REPEATED).increment(1);
            if let Some(delivery) = self.runs.keep_repeated(key, delivery) {
                self.settle(delivery, Settlement::Ack);
            }
            return;
        }
        if let Some(reason) = self.environment.executor.refuses(&assignment.shard.unit) {
            tracing::warn!(shard = %key.shard, unit = assignment.shard.unit, reason, "a shard cannot be run here");
            return self.start(assignment, delivery, Err(reason));
        }
        self.offers.push(Offer {
            queue,
            delivery,
            claim: assignment.claim(),
            released: self.clock.at_unix_ms(assignment.shard.released_unix_ms),
            assignment,
            offered,
            held_until: Instant::now() + self.hold,
        });
    }

    /// Does what can be done now.
    fn reconsider(&mut self) {
        if let Some(queues) = &mut self.queues {
            queues.pass_time();
        }
        self.choose();
        gauge!(OFFERS_HELD).set(self.offers.len() as f64);
        let pool = self.leases.pool();
        self.snapshot.send_if_modified(|snapshot| {
            let offers = self.offers.iter().map(|offer| offer.assignment.key()).collect();
            let next = Snapshot { offers, ..self.runs.snapshot(&pool, self.queues.is_none()) };
            let changed = *snapshot != next;
            *snapshot = next;
            changed
        });
    }

    fn choose(&mut self) {
        let now = self.clock.now();
        // What will be left if everything comes that queues were opened for.
        let mut pool = self.leases.pool();
        for claim in self.queues.iter().flat_map(ShardQueues::expected) {
            // If it does not fit any more, it will wait like others.
            let _ = pool.try_acquire(claim, now);
        }
        loop {
            let (candidates, offers) = self.candidates();
            match self.policy.choose(&offers, &pool, now) {
                Decision::Claim(place) => {
                    match candidates[place] {
                        Candidate::InHand(index) => {
                            if !self.claim(index, now) {
                                return;
                            }
                        }
                        Candidate::Remembered(queue) => {
                            if let Some(queues) = &mut self.queues {
                                queues.expect(queue);
                            }
                        }
                    }
                    let _ = pool.try_acquire(&offers[place].claim, now);
                }
                Decision::HandBack(place, resource) => match candidates[place] {
                    Candidate::InHand(index) => self.hand_back(index, &HandBack::NeverFits(resource)),
                    // What never fits is not remembered.
                    Candidate::Remembered(_) => return,
                },
                Decision::Wait { waiting, .. } => {
                    self.somebody_waits = !waiting.is_empty();
                    self.leases.say_waiting(self.somebody_waits);
                    self.preempt(&offers, now);
                    self.keep(&candidates, &offers, &waiting);
                    return;
                }
            }
        }
    }

    fn candidates(&self) -> (Vec<Candidate>, Vec<PolicyOffer>) {
        let in_hand = self.offers.iter().enumerate().map(|(index, offer)| {
            let Offer { claim, released, offered, .. } = offer;
            let known = PolicyOffer { claim: claim.clone(), released: *released, offered: *offered };
            (Candidate::InHand(index), known)
        });
        let remembered = self.queues.iter().flat_map(ShardQueues::remembered).map(|(queue, offer)| {
            let Remembered { claim, released, offered, .. } = offer.clone();
            (Candidate::Remembered(queue), PolicyOffer { claim, released, offered })
        });
        in_hand.chain(remembered).unzip()
    }

    /// Hands back what has been held for long, and what is not among the first few.
    fn keep(&mut self, candidates: &[Candidate], offers: &[PolicyOffer], waiting: &[Waiting]) {
        let mut order: Vec<(usize, usize)> = candidates
            .iter()
            .enumerate()
            .filter_map(|(place, candidate)| match candidate {
                Candidate::InHand(index) => Some((place, *index)),
                Candidate::Remembered(_) => None,
            })
            .collect();
        order.sort_by_key(|(place, _)| (offers[*place].claim.priority, offers[*place].released));
        let now = Instant::now();
        let mut back: Vec<(usize, HandBack)> = Vec::new();
        for (rank, (place, index)) in order.into_iter().enumerate() {
            if self.offers[index].held_until <= now {
                let reason = waiting.get(place).map(|waiting| format!("{:?}", waiting.reason));
                tracing::debug!(shard = %self.offers[index].assignment.headers.shard, reason, "an offer waits for too long");
                back.push((index, HandBack::Held));
            } else if rank >= self.most_held {
                back.push((index, HandBack::TooMany));
            }
        }
        // From the last, so that the places before it stay.
        back.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        for (index, reason) in back {
            self.hand_back(index, &reason);
        }
    }

    /// Stops borrowers that overran while somebody waits for what is guaranteed to it.
    fn preempt(&mut self, offers: &[PolicyOffer], now: Time) {
        let pool = self.leases.pool();
        for offer in offers {
            for lease in pool.overdue_borrowers(offer.claim.priority, &offer.claim.vector, now) {
                if let Some(run) = self.runs.stop_lease(lease, StopReason::Preempted) {
                    tracing::info!(%run, priority = %offer.claim.priority, "a run is preempted: it overran on borrowed capacity");
                }
            }
        }
    }

    /// Claims an offer. `false` if the pool disagrees, because a lease has grown since the choice.
    fn claim(&mut self, index: usize, now: Time) -> bool {
        let lease = match self.leases.acquire(&self.offers[index].claim, now) {
            Ok(lease) => lease,
            Err(resource) => {
                // A lease has grown in between; that wakes the chooser again.
                tracing::debug!(%resource, "an offer was chosen that does not fit any more");
                return false;
            }
        };
        let Offer { queue, delivery, assignment, .. } = self.offers.swap_remove(index);
        if let Some(queues) = &mut self.queues {
            queues.claimed(queue);
        }
        self.start(assignment, delivery, Ok(lease));
        true
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

    /// Hands an offer back and parks its queue.
    fn hand_back(&mut self, index: usize, reason: &HandBack) {
        let offer = self.offers.swap_remove(index);
        let key: AttemptKey = offer.assignment.key();
        counter!(OFFERS_HANDED_BACK, "reason" => reason.label()).increment(1);
        let remembered = match reason {
            HandBack::NeverFits(resource) => {
                tracing::info!(shard = %key.shard, wants = %offer.claim.vector, %resource, "a shard is too large for this worker");
                None
            }
            HandBack::Held | HandBack::TooMany => {
                Some(Remembered { claim: offer.claim, released: offer.released, offered: offer.offered })
            }
        };
        let consumer = self.queues.as_mut().and_then(|q| q.park(offer.queue, key, offer.offered, remembered));
        self.chores.spawn(async move {
            // First the consumer, or the broker might offer it here again.
            if let Some(consumer) = consumer {
                consumer.close().await;
            }
            offer.delivery.requeue().await;
        });
    }

    fn settle(&mut self, delivery: Delivery, settlement: Settlement) {
        self.chores.spawn(async move {
            // If its channel is gone it is offered again.
            delivery.settle(settlement).await;
        });
    }

    fn stop_claiming(&mut self, done: oneshot::Sender<()>) {
        let consumers = self.queues.take().map(ShardQueues::into_consumers).unwrap_or_default();
        let offers = std::mem::take(&mut self.offers);
        counter!(OFFERS_HANDED_BACK, "reason" => "drain").increment(offers.len() as u64);
        self.somebody_waits = false;
        self.chores.spawn(async move {
            for consumer in consumers {
                consumer.close().await;
            }
            for offer in offers {
                offer.delivery.requeue().await;
            }
            // Who asked may have gone.
            let _ = done.send(());
        });
    }

    fn next_wake(&self) -> Option<Instant> {
        let held = self.offers.iter().map(|offer| offer.held_until);
        let queues = self.queues.iter().filter_map(ShardQueues::next_change);
        let overruns = self.somebody_waits.then(|| Instant::now() + OVERRUNS_EVERY);
        held.chain(queues).chain(overruns).min()
    }
}

/// Why an offer is handed back.
enum HandBack {
    /// It could not be claimed within the hold.
    Held,
    /// Enough others are held.
    TooMany,
    /// Not even an empty worker could hold it, for lack of this.
    NeverFits(Resource),
}

impl HandBack {
    fn label(&self) -> &'static str {
        match self {
            Self::Held => "hold",
            Self::TooMany => "room",
            Self::NeverFits(_) => "never-fits",
        }
    }
}
