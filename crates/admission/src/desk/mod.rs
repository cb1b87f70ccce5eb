//! The desk: what a worker has in hand of each queue, which queues it takes offers from, and what to do next.
//!
//! A queue is *open* while the worker consumes from it, and *parked* after its offers were handed back, so that others
//! can take them. A parked queue remembers what it offered: that stands among the offers, so that others respect its
//! start in the future, and the queue is opened again when some of it could be claimed; at the latest after a pause. The
//! pause grows as long as the queue offers the same, and is the longer the less of what the queue offered lately fits.
//!
//! A queue that is opened again is *browsed*: its window is as wide as it takes to see, with a probability of
//! [`DeskOptions::confidence`], one offer that fits, going by what the queue offered lately. What cannot be claimed goes
//! back as soon as it is clear that it will not be within the hold: after a moment.
//!
//! The desk says what to do and never does it: its owner opens and closes consumers, settles offers and holds the pool.
//! The worker's claimer is one owner, a [simulated](crate::simulation) worker the other.
//!
//! Queues of shards that last for milliseconds have *deep* windows: several offers at a time, each of which is settled
//! only once it is done. [`Desk::overran`] ends that for a while.
//!
//! # What always holds
//!
//! - An offer leaves the desk exactly once: claimed, handed back, void because its channel was lost, or at the end.
//! - A queue that offers are handed back to is closed first, so that the broker does not offer them here again at once.
//! - No offer is in hand for longer than the hold, so no worker hides work from an idle one for longer than that.
//! - Of queues with a window of one, at most [`DeskOptions::most_held`] offers are kept beyond that moment.

mod deep;
mod pauses;
mod queue;

use std::time::Duration;

use forecastle_resources::{Resource, ResourceVector};

use crate::choice::{ClaimPolicy, Decision, Offer, Reason, Waiting};
use crate::lease::{Claim, LeaseId};
use crate::pool::{Acquisition, Pool};
use crate::time::Time;
pub use deep::{LONGEST_IN_DEEP_WINDOW, is_deep, window};
use pauses::{Chance, Pauses};
use queue::Queue;

/// A queue's number, among those of one worker.
pub type QueueIndex = usize;

/// How a desk behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeskOptions {
    /// The choice among offers.
    pub policy: ClaimPolicy,
    /// How long an offer that cannot be claimed is kept at most; one that is not predicted to start within it is not.
    pub hold: Duration,
    /// The most offers that are kept without being claimed.
    pub most_held: usize,
    /// The widest window of a queue that is browsed.
    pub widest_window: u16,
    /// The probability with which a browsed queue is to show something that fits.
    pub confidence: f64,
    /// The moment that is waited for the rest of a window before what came is judged.
    pub moment: Duration,
    /// How long it takes at most until a queue that was opened offers something, unless it is empty.
    pub expected_within: Duration,
    /// The longest pause before a parked queue is opened again.
    pub longest_pause: Duration,
    /// How often it is looked for borrowers that overrun, while somebody waits.
    pub overruns_every: Duration,
    /// Where the chance in the pauses begins; another for each worker, so that a fleet does not come back all at once.
    pub seed: u64,
}

impl Default for DeskOptions {
    fn default() -> Self {
        Self {
            policy: ClaimPolicy::default(),
            hold: Duration::from_secs(2),
            most_held: 3,
            widest_window: 16,
            confidence: 0.99,
            moment: Duration::from_millis(20),
            expected_within: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
            overruns_every: Duration::from_secs(1),
            seed: 0,
        }
    }
}

/// What a queue offers, as its owner knows it. `K` tells attempts apart; `T` is whatever settles the offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival<K, T> {
    /// The queue.
    pub queue: QueueIndex,
    /// Which attempt of which shard.
    pub key: K,
    /// What it would take.
    pub claim: Claim,
    /// When the shard was released to its queue.
    pub released: Time,
    /// The owner's.
    pub payload: T,
}

/// An offer in hand.
#[derive(Debug, Clone)]
struct InHand<K, T> {
    arrival: Arrival<K, T>,
    /// When it was first offered here, whether it was handed back since or not.
    offered: Time,
    since: Time,
}

/// What to do next. After anything but [`Step::Wait`], do it and ask again.
#[derive(Debug)]
pub enum Step<K, T> {
    /// Run it, with the lease that was acquired for it.
    Claim(Arrival<K, T>, LeaseId),
    /// Close the queue's consumer, then return the offers to the queue.
    HandBack {
        /// The queue.
        queue: QueueIndex,
        /// All that is in hand of it, the oldest first.
        offers: Vec<Arrival<K, T>>,
        /// Why.
        reason: HandBack,
    },
    /// Open a consumer of this queue.
    Open {
        /// Which.
        queue: QueueIndex,
        /// How many unsettled offers it may have.
        window: u16,
    },
    /// Nothing, until something is freed, an offer comes, or it is `wake`.
    Wait {
        /// Whether something waits for something to be freed.
        somebody_waits: bool,
        /// Leases to stop: borrowers that overran while somebody waits for what is guaranteed to it.
        preempt: Vec<LeaseId>,
        /// When to ask again at the latest.
        wake: Option<Time>,
    },
}

/// Why offers are handed back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandBack {
    /// One could not be claimed within the hold, or is predicted not to be, for this reason.
    Held(Reason),
    /// Enough others are held.
    TooMany,
    /// Not even an empty worker could hold one, for lack of this.
    NeverFits(Resource),
    /// Another of a deep window lasts too long.
    Overran,
}

/// Who takes part in the choice.
#[derive(Debug, Clone, Copy)]
enum Candidate {
    /// An offer in hand, by its place.
    InHand(usize),
    /// What a parked queue offered, by its place there.
    Remembered(QueueIndex, usize),
}

/// The desk of one worker.
#[derive(Debug)]
pub struct Desk<K, T> {
    options: DeskOptions,
    queues: Vec<Queue<K>>,
    in_hand: Vec<InHand<K, T>>,
    chance: Chance,
}

impl<K: Copy + Eq, T> Desk<K, T> {
    /// A desk with a queue for each of these windows, all of them open with it.
    pub fn new(windows: impl IntoIterator<Item = u16>, options: DeskOptions) -> Self {
        let pauses = Pauses::new(options.hold, options.longest_pause);
        Self {
            queues: windows.into_iter().map(|window| Queue::open(window, pauses)).collect(),
            in_hand: Vec::new(),
            chance: Chance::new(options.seed),
            options,
        }
    }

    /// The queues that are open, each with its window.
    pub fn windows(&self) -> impl Iterator<Item = (QueueIndex, u16)> {
        self.queues
            .iter()
            .enumerate()
            .filter(|(_, queue)| queue.is_open())
            .map(|(index, queue)| (index, queue.window()))
    }

    /// Notes that a queue has offered something that is not to be chosen among.
    pub fn passed(&mut self, queue: QueueIndex, key: K, now: Time) {
        self.queues[queue].offered(key, now);
    }

    /// A new offer to choose among.
    pub fn take(&mut self, arrival: Arrival<K, T>, now: Time) {
        let queue = arrival.queue;
        let offered = self.queues[queue].offered(arrival.key, now);
        self.queues[queue].learn(&arrival.claim);
        self.in_hand.push(InHand { arrival, offered, since: now });
        if self.is_full(queue) {
            // What had been expected is not among the first any more.
            self.queues[queue].forget_all();
        }
    }

    /// The channel of some offers was lost: they are void. Answers with what they were.
    pub fn void(&mut self, lost: impl Fn(&Arrival<K, T>) -> bool) -> Vec<Arrival<K, T>> {
        self.in_hand.extract_if(.., |offer| lost(&offer.arrival)).map(|offer| offer.arrival).collect()
    }

    /// What is in hand.
    pub fn in_hand(&self) -> impl ExactSizeIterator<Item = &Arrival<K, T>> {
        self.in_hand.iter().map(|offer| &offer.arrival)
    }

    /// A shard of a queue with a deep window lasts longer than the shards that such windows are for: the queue is parked.
    /// Answers with the [`Step::HandBack`] to make, unless it is parked already.
    pub fn overran(&mut self, queue: QueueIndex, now: Time) -> Option<Step<K, T>> {
        self.queues[queue].is_open().then(|| self.hand_back(queue, HandBack::Overran, now))
    }

    /// The end: answers with what is in hand, the oldest first.
    pub fn close(self) -> Vec<Arrival<K, T>> {
        let mut offers: Vec<_> = self.in_hand.into_iter().map(|offer| offer.arrival).collect();
        offers.sort_by_key(|offer| offer.released);
        offers
    }

    /// What to do, with the pool as it is. What is claimed has its lease from it.
    pub fn next(&mut self, pool: &mut Pool, now: Time) -> Step<K, T> {
        if let Some(queue) = self.pass_time(pool, now) {
            return self.open(queue, pool);
        }
        // What will be left if everything comes that queues were opened for.
        let mut rest = pool.clone();
        for claim in self.queues.iter().flat_map(Queue::expected) {
            // If it does not fit any more, it will wait like others.
            let _ = rest.try_acquire(claim, now);
        }
        loop {
            let (candidates, offers): (Vec<_>, Vec<_>) = self.candidates().unzip();
            match self.options.policy.choose(&offers, &rest, now) {
                Decision::Claim(place) => match candidates[place] {
                    Candidate::InHand(index) => {
                        // It fits in what is left beside more leases than there are, so it fits.
                        let Acquisition::Acquired(lease) = pool.try_acquire(&offers[place].claim, now) else {
                            return self.wait(&offers, pool, now);
                        };
                        let arrival = self.in_hand.swap_remove(index).arrival;
                        self.queues[arrival.queue].claimed();
                        return Step::Claim(arrival, lease);
                    }
                    Candidate::Remembered(queue, known) => {
                        let _ = rest.try_acquire(&offers[place].claim, now);
                        if self.queues[queue].expect(known, now.after(self.options.expected_within)) {
                            return self.open(queue, pool);
                        }
                    }
                },
                Decision::HandBack(place, resource) => match candidates[place] {
                    Candidate::InHand(index) => {
                        let queue = self.in_hand[index].arrival.queue;
                        return self.hand_back(queue, HandBack::NeverFits(resource), now);
                    }
                    // The pool is not what it was when this was put in mind.
                    Candidate::Remembered(queue, known) => self.queues[queue].forget(known),
                },
                Decision::Wait { waiting, .. } => {
                    if let Some((queue, reason)) =
                        self.not_to_keep(&candidates, &offers, &waiting, pool.capacity(), now)
                    {
                        return self.hand_back(queue, reason, now);
                    }
                    return self.wait(&offers, pool, now);
                }
            }
        }
    }

    /// Forgets what did not come, and answers with the first parked queue whose pause is over, now open.
    fn pass_time(&mut self, pool: &Pool, now: Time) -> Option<QueueIndex> {
        let expected_within = self.options.expected_within;
        self.queues.iter_mut().for_each(|queue| queue.forget_overdue(now));
        self.queues.iter_mut().position(|queue| queue.open_if_due(pool, now, expected_within))
    }

    /// Opens a queue that was parked, to browse it.
    fn open(&mut self, queue: QueueIndex, pool: &Pool) -> Step<K, T> {
        let DeskOptions { confidence, widest_window, .. } = self.options;
        let window = self.queues[queue].browse(pool, confidence, widest_window);
        Step::Open { queue, window }
    }

    fn is_full(&self, queue: QueueIndex) -> bool {
        let in_hand = self.in_hand.iter().filter(|offer| offer.arrival.queue == queue);
        in_hand.count() >= usize::from(self.queues[queue].window())
    }

    /// When an offer is judged.
    fn judged_at(&self, offer: &InHand<K, T>) -> Time {
        if self.is_full(offer.arrival.queue) { offer.since } else { offer.since.after(self.options.moment) }
    }

    fn candidates(&self) -> impl Iterator<Item = (Candidate, Offer)> {
        let in_hand = self.in_hand.iter().enumerate().map(|(index, offer)| {
            let InHand { arrival: Arrival { claim, released, .. }, offered, .. } = offer;
            (Candidate::InHand(index), Offer { claim: claim.clone(), released: *released, offered: *offered })
        });
        let remembered = self.queues.iter().enumerate().flat_map(|(index, queue)| {
            queue.remembered().map(move |(place, offer)| (Candidate::Remembered(index, place), offer.clone()))
        });
        in_hand.chain(remembered)
    }

    /// A queue whose offers go back, because one of them has been held for long, will not be claimed soon, or is not
    /// among the first few.
    fn not_to_keep(
        &self,
        candidates: &[Candidate],
        offers: &[Offer],
        waiting: &[Waiting],
        capacity: &ResourceVector,
        now: Time,
    ) -> Option<(QueueIndex, HandBack)> {
        let mut kept = 0;
        self.options.policy.order(offers, capacity).into_iter().find_map(|place| {
            let Candidate::InHand(index) = candidates[place] else { return None };
            let (in_hand, waiting) = (&self.in_hand[index], &waiting[place]);
            let queue = in_hand.arrival.queue;
            if now < self.judged_at(in_hand) {
                return None;
            }
            let held_until = in_hand.since.after(self.options.hold);
            if held_until <= now || waiting.not_before > held_until {
                return Some((queue, HandBack::Held(waiting.reason.clone())));
            }
            if !self.queues[queue].is_deep() {
                kept += 1;
            }
            (kept > self.options.most_held).then_some((queue, HandBack::TooMany))
        })
    }

    /// Parks a queue, with all that is in hand of it.
    fn hand_back(&mut self, queue: QueueIndex, reason: HandBack, now: Time) -> Step<K, T> {
        let mut offers: Vec<_> = self.in_hand.extract_if(.., |offer| offer.arrival.queue == queue).collect();
        offers.sort_by_key(|offer| offer.arrival.released);
        let remembered =
            offers.iter().map(|InHand { arrival: Arrival { key, claim, released, .. }, offered, .. }| {
                (*key, Offer { claim: claim.clone(), released: *released, offered: *offered })
            });
        self.queues[queue].park(remembered, now, &mut self.chance);
        Step::HandBack { queue, offers: offers.into_iter().map(|offer| offer.arrival).collect(), reason }
    }

    fn wait(&self, offers: &[Offer], pool: &Pool, now: Time) -> Step<K, T> {
        let somebody_waits = !offers.is_empty();
        let held = self.in_hand.iter().map(|offer| offer.since.after(self.options.hold));
        let judged = self.in_hand.iter().map(|offer| self.judged_at(offer)).filter(|at| *at > now);
        let queues = self.queues.iter().filter_map(|queue| queue.next_change(pool));
        let overruns = somebody_waits.then(|| now.after(self.options.overruns_every));
        let wake = held.chain(judged).chain(queues).chain(overruns).min();
        Step::Wait { somebody_waits, preempt: overrunning(offers, pool, now), wake }
    }
}

/// Borrowers that overran while one of these offers waits for what is guaranteed to it.
fn overrunning(offers: &[Offer], pool: &Pool, now: Time) -> Vec<LeaseId> {
    let named = |offer: &Offer| pool.overdue_borrowers(offer.claim.priority, &offer.claim.vector, now);
    let mut leases: Vec<LeaseId> = offers.iter().flat_map(named).collect();
    leases.sort_unstable();
    leases.dedup();
    leases
}
