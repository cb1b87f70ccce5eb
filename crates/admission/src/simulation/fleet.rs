//! Many workers on one broker, event by event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::Duration;

use forecastle_resources::{Priority, ReferenceWorker, Reservation, ResourceVector, SizeClass};

use super::load::Job;
use super::queue::ShardQueue;
use super::report::{Operations, Report};
use crate::desk::{Arrival, Desk, DeskOptions, LONGEST_IN_DEEP_WINDOW, QueueIndex, Step, is_deep, window};
use crate::lease::{Claim, LeaseId};
use crate::pool::Pool;
use crate::shares::Shares;
use crate::time::Time;

/// A fleet of workers that are all alike.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// How many.
    pub workers: usize,
    /// What each has.
    pub capacity: ResourceVector,
    /// What of it is guaranteed, and bounded.
    pub shares: Shares,
    /// How their desks behave; each has a seed of its own.
    pub desk: DeskOptions,
    /// How long a message takes between a worker and the broker, one way.
    pub latency: Duration,
    /// The yardstick of size classes.
    pub reference: ReferenceWorker,
}

impl Fleet {
    /// A fleet without shares, with the desks as they are unless configured, a millisecond from the broker, and with
    /// its own workers as the yardstick.
    pub fn new(workers: usize, capacity: ResourceVector) -> Self {
        Self {
            workers,
            reference: ReferenceWorker(capacity.clone()),
            capacity,
            shares: Shares::none(),
            desk: DeskOptions::default(),
            latency: Duration::from_millis(1),
        }
    }

    /// Runs all jobs. What has not ended by `until` is left.
    ///
    /// # Panics
    ///
    /// If the shares do not fit the capacity.
    pub fn run(&self, jobs: &[Job], until: Duration) -> Report {
        let mut run = Run::new(self, jobs);
        while let Some(Reverse(Due { at, event, .. })) = run.events.pop() {
            if at.0 > until {
                break;
            }
            run.now = at;
            run.handle(event);
        }
        run.report
    }
}

/// A consumer, among all of a run.
pub(super) type ConsumerId = u64;

/// Something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The broker has a shard to offer.
    Released(usize),
    /// The broker knows of a consumer.
    Opened(ConsumerId, u16),
    /// The broker has forgotten a consumer.
    Closed(ConsumerId),
    /// An offer has reached its worker.
    Offered(ConsumerId, usize),
    /// The broker has an offer back.
    Returned(ConsumerId, usize),
    /// A run has ended, unless it was stopped before.
    Ended(usize, LeaseId),
    /// A run of a deep window lasts too long, if it still does.
    Overran(usize, QueueIndex, LeaseId),
    /// Nothing is left of a run that was stopped.
    Stopped(usize, LeaseId),
    /// A worker looks again, unless it has since.
    Wake(usize, u64),
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Time,
    /// Events at the same time happen in the order in which they were foreseen.
    order: u64,
    event: Event,
}

/// A worker.
struct Worker {
    pool: Pool,
    desk: Desk<(usize, u32), ()>,
    consumers: Vec<ConsumerId>,
    runs: HashMap<LeaseId, usize>,
    /// When each offer in hand came.
    since: BTreeMap<usize, Time>,
    looks: u64,
}

struct Run<'a> {
    fleet: &'a Fleet,
    jobs: &'a [Job],
    now: Time,
    events: BinaryHeap<Reverse<Due>>,
    order: u64,
    queues: Vec<ShardQueue>,
    workers: Vec<Worker>,
    /// Whose they are.
    consumers: HashMap<ConsumerId, (usize, QueueIndex)>,
    next_consumer: ConsumerId,
    attempts: Vec<u32>,
    report: Report,
}

/// The windows of a worker's queues.
fn windows() -> [u16; QUEUES] {
    std::array::from_fn(|queue| window(class_of(queue)))
}

/// The class of a queue's shards.
fn class_of(queue: QueueIndex) -> SizeClass {
    SizeClass::ALL[queue % SizeClass::ALL.len()]
}

const QUEUES: usize = Priority::ALL.len() * SizeClass::ALL.len();

impl<'a> Run<'a> {
    fn new(fleet: &'a Fleet, jobs: &'a [Job]) -> Self {
        let pool = Pool::new(fleet.capacity.clone(), fleet.shares.clone(), Pool::LENDING_HORIZON)
            .expect("the shares fit the capacity");
        let worker = |number: usize| {
            let options = DeskOptions { seed: fleet.desk.seed.wrapping_add(number as u64), ..fleet.desk };
            Worker {
                pool: pool.clone(),
                desk: Desk::new(windows(), options),
                consumers: vec![0; QUEUES],
                runs: HashMap::new(),
                since: BTreeMap::new(),
                looks: 0,
            }
        };
        let mut run = Self {
            fleet,
            jobs,
            now: Time::START,
            events: BinaryHeap::new(),
            order: 0,
            queues: (0..QUEUES).map(|_| ShardQueue::default()).collect(),
            workers: (0..fleet.workers).map(worker).collect(),
            consumers: HashMap::new(),
            next_consumer: 0,
            attempts: vec![1; jobs.len()],
            report: Report {
                starts: vec![None; jobs.len()],
                makespan: Duration::ZERO,
                operations: Operations::default(),
                longest_in_hand: Duration::ZERO,
                most_in_hand: 0,
                preempted: 0,
            },
        };
        for worker in 0..fleet.workers {
            windows().into_iter().enumerate().for_each(|(queue, window)| run.open(worker, queue, window));
        }
        for (job, Job { released, .. }) in jobs.iter().enumerate() {
            run.foresee(*released, Event::Released(job));
        }
        run
    }

    fn foresee(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.events.push(Reverse(Due { at, order: self.order, event }));
    }

    /// After so many messages, one after the other.
    fn after_messages(&mut self, count: u32, event: Event) {
        self.foresee(self.now.after(self.fleet.latency * count), event);
    }

    fn queue_of(&self, job: usize) -> QueueIndex {
        let Job { priority, vector, predicted, in_process, .. } = &self.jobs[job];
        let class = self.fleet.reference.class_of(&Reservation::new(vector.clone(), *predicted), *in_process);
        let place = |found: Option<usize>| found.expect("all are listed");
        let priority = place(Priority::ALL.iter().position(|other| other == priority));
        priority * SizeClass::ALL.len() + place(SizeClass::ALL.iter().position(|other| *other == class))
    }

    fn open(&mut self, worker: usize, queue: QueueIndex, window: u16) {
        self.next_consumer += 1;
        self.consumers.insert(self.next_consumer, (worker, queue));
        self.workers[worker].consumers[queue] = self.next_consumer;
        self.report.operations.opened += 1;
        self.after_messages(1, Event::Opened(self.next_consumer, window));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Released(job) => {
                let queue = self.queue_of(job);
                self.queues[queue].publish(job);
                self.deliver(queue);
            }
            Event::Opened(consumer, more) => {
                if let Some((_, queue)) = self.consumers.get(&consumer).copied() {
                    self.queues[queue].has_room(consumer, more);
                    self.deliver(queue);
                }
            }
            Event::Closed(consumer) => {
                if let Some((_, queue)) = self.consumers.remove(&consumer) {
                    self.queues[queue].cancel(consumer);
                }
            }
            Event::Returned(_, job) => {
                let queue = self.queue_of(job);
                self.queues[queue].requeue(job);
                self.deliver(queue);
            }
            Event::Offered(consumer, job) => {
                match self.consumers.get(&consumer).copied() {
                    Some((worker, queue)) if self.workers[worker].consumers[queue] == consumer => {
                        self.offer(worker, queue, job);
                    }
                    // It was closed in between.
                    _ => {
                        self.report.operations.returns += 1;
                        self.after_messages(1, Event::Returned(consumer, job));
                    }
                }
            }
            Event::Ended(worker, lease) => {
                if self.workers[worker].runs.remove(&lease).is_some() {
                    self.report.makespan = self.now.0;
                    self.release(worker, lease);
                }
            }
            Event::Overran(worker, queue, lease) => {
                if self.workers[worker].runs.contains_key(&lease)
                    && let Some(step) = self.workers[worker].desk.overran(queue, self.now)
                {
                    self.take_step(worker, step);
                    self.look(worker);
                }
            }
            Event::Stopped(worker, lease) => self.release(worker, lease),
            Event::Wake(worker, look) if self.workers[worker].looks == look => self.look(worker),
            Event::Wake(..) => {}
        }
    }

    fn deliver(&mut self, queue: QueueIndex) {
        while let Some((consumer, job)) = self.queues[queue].deliver() {
            self.report.operations.deliveries += 1;
            self.after_messages(1, Event::Offered(consumer, job));
        }
    }

    fn offer(&mut self, worker: usize, queue: QueueIndex, job: usize) {
        let Job { released, priority, vector, predicted, .. } = &self.jobs[job];
        let arrival = Arrival {
            queue,
            key: (job, self.attempts[job]),
            claim: Claim { priority: *priority, vector: vector.clone(), predicted_end_after: *predicted },
            released: *released,
            payload: (),
        };
        let now = self.now;
        self.workers[worker].since.insert(job, now);
        self.workers[worker].desk.take(arrival, now);
        self.look(worker);
    }

    /// A worker does what its desk says.
    fn look(&mut self, number: usize) {
        loop {
            let now = self.now;
            let worker = &mut self.workers[number];
            match worker.desk.next(&mut worker.pool, now) {
                Step::Wait { preempt, wake, .. } => {
                    for lease in preempt {
                        self.preempt(number, lease);
                    }
                    let worker = &mut self.workers[number];
                    worker.looks += 1;
                    let look = worker.looks;
                    self.report.most_in_hand = self.report.most_in_hand.max(worker.desk.in_hand().len());
                    if let Some(wake) = wake {
                        self.foresee(wake, Event::Wake(number, look));
                    }
                    return;
                }
                step => self.take_step(number, step),
            }
        }
    }

    /// A worker does one thing.
    fn take_step(&mut self, number: usize, step: Step<(usize, u32), ()>) {
        let now = self.now;
        match step {
            Step::Claim(arrival, lease) => {
                let (job, queue) = (arrival.key.0, arrival.queue);
                self.leave_hand(number, job);
                self.workers[number].runs.insert(lease, job);
                self.report.starts[job] = Some(now);
                self.report.operations.claims += 1;
                let consumer = self.workers[number].consumers[queue];
                let lasts = self.jobs[job].lasts;
                if is_deep(class_of(queue)) {
                    // It runs at once. Its completion goes out and is confirmed; then the acknowledgement goes out.
                    self.foresee(now.after(lasts), Event::Ended(number, lease));
                    self.foresee(now.after(lasts).after(self.fleet.latency * 3), Event::Opened(consumer, 1));
                    if lasts > LONGEST_IN_DEEP_WINDOW {
                        self.foresee(now.after(LONGEST_IN_DEEP_WINDOW), Event::Overran(number, queue, lease));
                    }
                } else {
                    // The claim goes out and is confirmed; then the acknowledgement goes out, and the shard runs.
                    self.after_messages(3, Event::Opened(consumer, 1));
                    let ends = now.after(self.fleet.latency * 2).after(lasts);
                    self.foresee(ends, Event::Ended(number, lease));
                }
            }
            Step::HandBack { queue, offers, .. } => {
                let consumer = std::mem::take(&mut self.workers[number].consumers[queue]);
                self.report.operations.closed += 1;
                self.report.operations.returns += 1;
                self.after_messages(1, Event::Closed(consumer));
                // The broker says that it is closed; then the offers go back, the first one last, so that it is the
                // first again.
                let mut jobs: Vec<usize> = offers.iter().map(|offer| offer.key.0).collect();
                jobs.sort_by_key(|job| std::cmp::Reverse(self.jobs[*job].released));
                for job in jobs {
                    self.leave_hand(number, job);
                    self.after_messages(3, Event::Returned(consumer, job));
                }
            }
            Step::Open { queue, window } => self.open(number, queue, window),
            Step::Wait { .. } => {}
        }
    }

    fn release(&mut self, worker: usize, lease: LeaseId) {
        self.workers[worker].pool.release(lease).expect("a lease is released when its run has ended, once");
        self.look(worker);
    }

    fn leave_hand(&mut self, worker: usize, job: usize) {
        if let Some(since) = self.workers[worker].since.remove(&job) {
            let held = self.now.since(since);
            self.report.longest_in_hand = self.report.longest_in_hand.max(held);
        }
    }

    /// Stops a run; the ledger orders another attempt.
    fn preempt(&mut self, worker: usize, lease: LeaseId) {
        // It may have been told before.
        let Some(job) = self.workers[worker].runs.remove(&lease) else { return };
        self.report.preempted += 1;
        self.report.starts[job] = None;
        self.attempts[job] += 1;
        // It takes as long as two messages to be gone, and two more until the next attempt is released.
        self.after_messages(2, Event::Stopped(worker, lease));
        self.after_messages(4, Event::Released(job));
    }
}
