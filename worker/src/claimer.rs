//! The claimer: the one owner of what is in flight. Everybody else sends it messages.
//!
//! The pure [desk](forecastle_admission::Desk) says what to do about offers; here it is done: consumers are opened and
//! closed, offers settled, and a [run](crate::run) is started for each that is claimed. A simulated fleet runs the same
//! desk.
//!
//! What always holds: the sum of all leases is at most the capacity; an attempt runs at most once at a time here; an
//! offer is settled exactly once, or its channel is gone.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use forecastle_admission::desk::{is_deep, window};
use forecastle_admission::{Arrival, Desk, DeskOptions, HandBack, LeaseId, QueueIndex, Step, Time};
use forecastle_broker::{Broker, Delivery, Settlement};
use forecastle_protos::ids::RunId;
use forecastle_resources::SizeClass;
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
use crate::prefix_acks::{Place, PrefixAcks};
use crate::queues::{ConsumerId, ShardConsumers};
use crate::run::{Run, RunEnvironment};
use crate::stop::{StopReason, StopSignal};

/// Messages to the claimer that wait; who sends more waits.
const MAILBOX: usize = 256;

/// The most messages that are heard before anything is done about them: acknowledgements go together then.
const AT_ONCE: usize = 64;

/// What the claimer hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// A queue offers a shard.
    Offered(ConsumerId, Box<Delivery>),
    /// A consumer lost its channel: what it offered is void.
    Interrupted(ConsumerId),
    /// The ledger's queue has the claim of this run.
    Claimed(RunId),
    /// The ledger's queue has the completion of this run, which was not claimed before.
    Answered(RunId, Box<DeepOffer>),
    /// A run of this consumer's deep window lasts too long: it is claimed after all.
    Overran(ConsumerId),
    /// A delivery of this consumer's deep window is settled without being done.
    OutOfOrder(ConsumerId),
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
    /// The queues that offer, each with the class of its shards.
    pub(crate) queues: Vec<(String, SizeClass)>,
}

/// An offer of a deep window, which is acknowledged when its shard is done.
#[derive(Debug)]
pub(crate) struct DeepOffer {
    pub(crate) consumer: ConsumerId,
    pub(crate) place: Place,
    pub(crate) delivery: Delivery,
}

/// What settles an offer, and what it asks for.
struct Offer {
    consumer: ConsumerId,
    delivery: Delivery,
    /// Of a deep window.
    place: Option<Place>,
    assignment: Arc<Assignment>,
}

/// The service.
pub(crate) struct Claimer {
    clock: Clock,
    leases: Leases,
    /// `None` once no more offers are taken.
    desk: Option<Desk<AttemptKey, Offer>>,
    consumers: ShardConsumers,
    /// Of the present consumer of each queue with a deep window.
    deep: HashMap<ConsumerId, PrefixAcks<Delivery>>,
    /// How many there were.
    deep_windows: u64,
    /// The classes of queues.
    classes: Vec<SizeClass>,
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
        let (queues, classes): (Vec<String>, Vec<SizeClass>) = options.queues.into_iter().unzip();
        let desk = Desk::new(classes.iter().map(|class| window(*class)), options.desk);
        let mut consumers = ShardConsumers::new(queues, broker, options.tag, sender.clone());
        desk.windows().for_each(|(queue, window)| consumers.open(queue, window));
        let (snapshot, snapshots) = watch::channel(Snapshot::default());
        let claimer = Self {
            clock: Clock::start(),
            leases,
            desk: Some(desk),
            consumers,
            deep: HashMap::new(),
            deep_windows: 0,
            classes,
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
                Some(message) = self.mailbox.recv() => {
                    self.hear(message);
                    for _ in 1..AT_ONCE {
                        let Ok(message) = self.mailbox.try_recv() else { break };
                        self.hear(message);
                    }
                    self.acknowledge().await;
                }
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
                // Nothing that was delivered before can be settled any more, and places begin anew.
                self.deep.remove(&consumer);
            }
            Message::Claimed(run) => {
                for delivery in self.runs.confirm_claim(run) {
                    self.settle(delivery, Settlement::Ack);
                }
            }
            Message::Answered(run, offer) => {
                let DeepOffer { consumer, place, delivery } = *offer;
                for repeated in self.runs.confirm_claim(run) {
                    self.settle(repeated, Settlement::Ack);
                }
                let by_itself = match self.deep.get_mut(&consumer) {
                    Some(acks) => acks.done(place, delivery),
                    None => Some(delivery),
                };
                if let Some(delivery) = by_itself {
                    self.settle(delivery, Settlement::Ack);
                }
            }
            Message::Overran(consumer) => self.overran(consumer),
            Message::OutOfOrder(consumer) => self.out_of_order(consumer),
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

    /// A run of a deep window lasts too long: nothing is to wait behind it.
    fn overran(&mut self, consumer: ConsumerId) {
        self.out_of_order(consumer);
        let now = self.clock.now();
        // Another of it may have closed the window before.
        if self.consumers.is_open(consumer)
            && let Some(Step::HandBack { queue, offers, reason }) =
                self.desk.as_mut().and_then(|desk| desk.overran(consumer.queue, now))
        {
            self.hand_back(queue, offers, &reason);
        }
    }

    /// The consumer of a queue is closed: what is in hand of it is settled in no order.
    fn forget_deep(&mut self, queue: QueueIndex) {
        let closed: Vec<ConsumerId> = self.deep.keys().copied().filter(|consumer| consumer.queue == queue).collect();
        for consumer in closed {
            self.out_of_order(consumer);
            // Those of its deliveries that are not done yet find no window, and are acknowledged one by one.
            self.deep.remove(&consumer);
        }
    }

    /// Acknowledges what is done of deep windows, as much as possible at once. Not as a chore: an acknowledgement of what
    /// a later one has taken along costs the channel, so they go out in their order. Nobody waits for the broker here.
    async fn acknowledge(&mut self) {
        for (delivery, settlement) in self.deep.values_mut().filter_map(PrefixAcks::settle) {
            // If its channel is gone it is offered again.
            delivery.settle(settlement).await;
        }
    }

    /// From now on deliveries of this consumer are settled one by one.
    fn out_of_order(&mut self, consumer: ConsumerId) {
        let done = self.deep_window(consumer).map(PrefixAcks::out_of_order).unwrap_or_default();
        for delivery in done {
            self.settle(delivery, Settlement::Ack);
        }
    }

    /// The deep window of a consumer, if its queue has one.
    fn deep_window(&mut self, consumer: ConsumerId) -> Option<&mut PrefixAcks<Delivery>> {
        let (deep, windows) = (&mut self.deep, &mut self.deep_windows);
        is_deep(self.classes[consumer.queue]).then(|| {
            deep.entry(consumer).or_insert_with(|| {
                *windows += 1;
                PrefixAcks::new(*windows)
            })
        })
    }

    /// A new offer.
    fn take(&mut self, consumer: ConsumerId, delivery: Delivery) {
        let assignment = match Assignment::read(&delivery.message) {
            Ok(assignment) => Arc::new(assignment),
            Err(error) => {
                tracing::warn!(%error, queue = delivery.routing_key, "a message is no shard; it goes to the returned queue");
                counter!(OFFERS_UNREADABLE).increment(1);
                self.out_of_order(consumer);
                return self.settle(delivery, Settlement::Reject);
            }
        };
        let (key, now) = (assignment.key(), self.clock.now());
        let refusal = self.environment.executor.refuses(&assignment.shard.unit);
        let plain = self.desk.is_some() && refusal.is_none() && !self.runs.is_live(key);
        let place = if plain { self.deep_window(consumer).map(PrefixAcks::arrived) } else { None };
        if !plain {
            self.out_of_order(consumer);
        }
        let Some(desk) = &mut self.desk else { return self.settle(delivery, Settlement::Requeue) };
        if self.runs.is_live(key) {
            // Its channel was lost before the acknowledgement. Once the claim is confirmed the ledger answers for it.
            counter!(OFFERS_REPEATED).increment(1);
            desk.passed(consumer.queue, key, now);
            if let Some(delivery) = self.runs.keep_repeated(key, delivery) {
                self.settle(delivery, Settlement::Ack);
            }
            return;
        }
        if let Some(reason) = refusal {
            tracing::warn!(shard = %key.shard, unit = assignment.shard.unit, reason, "a shard cannot be run here");
            desk.passed(consumer.queue, key, now);
            return self.start(Offer { consumer, delivery, place: None, assignment }, Err(reason));
        }
        let arrival = Arrival {
            queue: consumer.queue,
            key,
            claim: assignment.claim(),
            released: self.clock.at_unix_ms(assignment.shard.released_unix_ms),
            payload: Offer { consumer, delivery, place, assignment },
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
                Step::Claim(Arrival { payload: offer, .. }, lease) => {
                    let lease = self.leases.guard(lease);
                    self.start(offer, Ok(lease));
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

    fn start(&mut self, offer: Offer, lease: Result<crate::leases::Lease, String>) {
        let Offer { consumer, delivery, place, assignment } = offer;
        let (id, stop, usage) = (RunId::new(), StopSignal::new(), UsageNow::default());
        self.runs.insert(
            id,
            LiveRun::new(Arc::clone(&assignment), lease.as_ref().ok(), stop.clone(), usage.clone(), now_unix_ms()),
        );
        let environment = Arc::clone(&self.environment);
        match place {
            None => self.tasks.spawn(Run { id, assignment, offer: delivery, lease, stop, usage }.live(environment)),
            Some(place) => {
                let offer = DeepOffer { consumer, place, delivery };
                self.tasks.spawn(Run { id, assignment, offer, lease, stop, usage }.live_unclaimed(environment))
            }
        };
    }

    /// Hands offers back, the oldest last, so that it is the first again.
    fn hand_back(&mut self, queue: QueueIndex, offers: Vec<Arrival<AttemptKey, Offer>>, reason: &HandBack) {
        counter!(OFFERS_HANDED_BACK, "reason" => label(reason)).increment(offers.len() as u64);
        for Arrival { key, claim, .. } in &offers {
            tracing::debug!(shard = %key.shard, wants = %claim.vector, ?reason, "an offer is handed back");
        }
        let consumer = self.consumers.take(queue);
        self.forget_deep(queue);
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
        for queue in 0..self.classes.len() {
            self.forget_deep(queue);
        }
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
        HandBack::Overran => "overran",
    }
}
