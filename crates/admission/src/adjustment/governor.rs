//! All runs of a worker: who grows, who shrinks, and who makes way when memory is short.
//!
//! # When memory is short
//!
//! A run that rises close to its limit while the pool has nothing left is *short*.
//!
//! 1. What becomes free is kept from claims until runs that are short and not batch have got it.
//! 2. A short batch run is throttled for a while: it meets its limit later, when others may have ended.
//! 3. A short run that will meet its limit within moments makes the batch run stop that has run for the shortest time;
//!    for a short batch run only one that is younger than itself. Stopped runs are run again elsewhere, and that is not
//!    counted against them. No second one is stopped while the first is still giving back what is needed.
//! 4. With nobody to make way, a run meets its limit. What then ends it is counted as what it is, and its next attempt
//!    gets more.
//!
//! If the machine as a whole has less than [`AdjustmentPolicy::least_available`] left, the youngest batch run is stopped,
//! then after a pause the next, before the kernel chooses among all processes.

use std::collections::BTreeMap;
use std::time::Duration;

use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, Priority, ResourceVector};

use crate::adjustment::advice::{Advice, Change, Reason};
use crate::adjustment::policy::AdjustmentPolicy;
use crate::adjustment::sizing;
use crate::adjustment::subject::Subject;
use crate::adjustment::usage::{MemoryTrack, RateTrack, UsageSample};
use crate::lease::{Lease, LeaseId};
use crate::pool::Pool;
use crate::time::Time;

/// A run that is short and will meet its limit within this time makes others stop: what it takes to end one.
const STOP_LEAD: Duration = Duration::from_secs(1);

/// How long a batch run that is short is throttled.
const THROTTLE_FOR: Duration = Duration::from_secs(10);

/// The least that a lease grows by, unless it needs less: a pool that is nearly empty is not shared out by the page.
const LEAST_STEP: Bytes = Bytes::mib(1);

/// The part of its CPU that a throttled run keeps.
const THROTTLED: f64 = 0.1;

/// Between two runs that are stopped for the machine's sake: what the kernel needs to have the memory back.
const STOP_PAUSE: Duration = Duration::from_secs(2);

/// One run.
#[derive(Debug, Clone)]
struct Tracked {
    subject: Subject,
    since: Time,
    memory: Option<MemoryTrack>,
    cpu: RateTrack,
    io: RateTrack,
    /// When its lease changed, or could not.
    changed: Time,
    /// No change before this: one has failed.
    paused_until: Time,
    /// Memory that it needs and the pool does not have.
    short_of: Bytes,
    throttle: Throttle,
    /// Why it is to stop, and whether it has been told.
    stop: Option<(Reason, bool)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Throttle {
    Never,
    Since(Time),
    /// It had its time; not again before it was short no more.
    Over,
}

/// All runs of a worker. The owner supplies samples, the pool and the time, and does what it is advised.
#[derive(Debug, Clone)]
pub struct Governor {
    policy: AdjustmentPolicy,
    runs: BTreeMap<LeaseId, Tracked>,
    /// Memory that is available to the whole machine, if that is known.
    available: Option<Bytes>,
    last_stop: Option<Time>,
}

impl Governor {
    /// A governor of no runs.
    pub fn new(policy: AdjustmentPolicy) -> Self {
        Self { policy, runs: BTreeMap::new(), available: None, last_stop: None }
    }

    /// Its policy.
    pub fn policy(&self) -> &AdjustmentPolicy {
        &self.policy
    }

    /// A run starts, on a lease that it holds.
    pub fn begin(&mut self, lease: LeaseId, subject: Subject, now: Time) {
        let tracked = Tracked {
            subject,
            since: now,
            memory: None,
            cpu: RateTrack::default(),
            io: RateTrack::default(),
            changed: now,
            paused_until: now,
            short_of: Bytes::ZERO,
            throttle: Throttle::Never,
            stop: None,
        };
        self.runs.insert(lease, tracked);
    }

    /// A run has ended. Its lease may still be held.
    pub fn end(&mut self, lease: LeaseId) {
        self.runs.remove(&lease);
    }

    /// What was advised could not be done: nothing is advised for a while.
    pub fn failed(&mut self, lease: LeaseId, now: Time) {
        if let Some(run) = self.runs.get_mut(&lease) {
            run.paused_until = now.after(self.policy.settle);
        }
    }

    /// Memory that claims should not get, because runs that are short need it more; for [`Pool::keep_for_growth`].
    pub fn needed_for_growth(&self) -> Bytes {
        let urgent = self.runs.values().filter(|run| run.subject.priority != Priority::Batch && run.stop.is_none());
        urgent.fold(Bytes::ZERO, |sum, run| sum.saturating_add(run.short_of))
    }

    /// Says how much memory is available to the whole machine. If that is too little, a batch run will be advised to
    /// stop.
    pub fn machine(&mut self, available: Bytes, now: Time) {
        self.available = Some(available);
        let paused = self.last_stop.is_some_and(|at| now.since(at) < STOP_PAUSE);
        if available < self.policy.least_available
            && !paused
            && let Some(victim) = self.youngest_batch(None)
        {
            self.order_stop(victim, Reason::MachineShort, now);
        }
    }

    /// Takes a sample of a run and says what is to be done with it. `waiting` is true while shards wait that this worker
    /// could run.
    ///
    /// A growth must be made in `pool` before its next use; it fits.
    pub fn observe(&mut self, lease: LeaseId, sample: &UsageSample, pool: &Pool, waiting: bool, now: Time) -> Advice {
        let (policy, machine_room) = (self.policy, self.machine_room());
        let steady = Advice { change: Change::Keep, reason: Reason::Steady, next: policy.longest_interval };
        let (Some(run), Some(held)) = (self.runs.get_mut(&lease), pool.lease(lease)) else { return steady };
        let cpu_window_ended = run.take(sample, &policy, now);
        if let Some((reason, told)) = &mut run.stop {
            let change = if std::mem::replace(told, true) { Change::Keep } else { Change::Stop };
            return Advice { change, reason: *reason, ..steady };
        }
        if now < run.paused_until {
            return Advice { next: run.next(held.vector.memory, &policy), ..steady };
        }
        let room = pool.room_to_grow(held);
        let room = ResourceVector { memory: room.memory.min(machine_room), ..room };
        let (change, reason) = run.advise(held, &room, waiting, cpu_window_ended, &policy, now);
        let memory = match &change {
            Change::Grow(to) | Change::Shrink(to) => to.memory,
            _ => held.vector.memory,
        };
        let advice = Advice { change, reason, next: run.next(memory, &policy) };
        if run.meets_limit(memory, STOP_LEAD) {
            self.make_way(lease, pool, now);
        }
        advice
    }

    /// How much of the pool's free memory the machine really has.
    fn machine_room(&self) -> Bytes {
        self.available.map_or(Bytes(u64::MAX), |available| available.saturating_sub(self.policy.least_available))
    }

    /// Orders a batch run to stop in favour of `lease`, unless enough are stopping.
    fn make_way(&mut self, lease: LeaseId, pool: &Pool, now: Time) {
        let Some(short) = self.runs.get(&lease) else { return };
        let (needed, priority, since) = (short.short_of, short.subject.priority, short.since);
        let coming = self.runs.iter().filter(|(_, run)| run.stop.is_some()).fold(Bytes::ZERO, |sum, (id, _)| {
            sum.saturating_add(pool.lease(*id).map_or(Bytes::ZERO, |lease| lease.vector.memory))
        });
        if coming >= needed {
            return;
        }
        let younger_than = (priority == Priority::Batch).then_some((since, lease));
        if let Some(victim) = self.youngest_batch(younger_than) {
            self.order_stop(victim, Reason::MakesWay, now);
        }
    }

    fn order_stop(&mut self, lease: LeaseId, reason: Reason, now: Time) {
        if let Some(run) = self.runs.get_mut(&lease) {
            run.stop = Some((reason, false));
            self.last_stop = Some(now);
        }
    }

    /// The batch run that has run for the shortest time, among those that started after `than`.
    fn youngest_batch(&self, than: Option<(Time, LeaseId)>) -> Option<LeaseId> {
        let batch = self.runs.iter().filter(|(_, run)| run.subject.priority == Priority::Batch && run.stop.is_none());
        let key = |(id, run): (&LeaseId, &Tracked)| (run.since, *id);
        batch.map(key).filter(|key| than.is_none_or(|than| *key > than)).max().map(|(_, id)| id)
    }
}

impl Tracked {
    /// Takes a sample; true if a window of CPU or I/O has ended with it.
    fn take(&mut self, sample: &UsageSample, policy: &AdjustmentPolicy, now: Time) -> bool {
        if let Some(memory) = sample.memory {
            match &mut self.memory {
                Some(track) => track.take(memory, now, policy.longest_interval),
                none => *none = Some(MemoryTrack::first(memory, now)),
            }
        }
        // Thousandths of a core are milliseconds a second.
        let cpu = sample.cpu.is_some_and(|cpu| self.cpu.take(cpu.as_secs_f64() * 1000.0, now));
        let io = sample.io.is_some_and(|io| self.io.take(io.get() as f64, now));
        cpu || io
    }

    fn advise(
        &mut self,
        held: &Lease,
        room: &ResourceVector,
        waiting: bool,
        window_ended: bool,
        policy: &AdjustmentPolicy,
        now: Time,
    ) -> (Change, Reason) {
        if let Some(grown) = self.grow_memory(held, room, waiting, policy, now) {
            self.changed = now;
            return (Change::Grow(grown), Reason::MemoryNearLimit);
        }
        if let Some(change) = self.throttle(&held.vector, now) {
            return (change, Reason::MemoryShort);
        }
        if self.short_of > Bytes::ZERO || matches!(self.throttle, Throttle::Since(_)) {
            return (Change::Keep, Reason::MemoryShort);
        }
        if waiting && let Some(back) = self.without_excess(&held.vector, policy, now) {
            self.changed = now;
            return (Change::Shrink(back), Reason::Wanted);
        }
        if window_ended && let Some(grown) = self.grow_rates(held, room, waiting, policy, now) {
            self.changed = now;
            return (Change::Grow(grown), Reason::Saturated);
        }
        match self.shrink(&held.vector, policy, now) {
            Some(kept) => {
                self.changed = now;
                (Change::Shrink(kept), Reason::NotNeeded)
            }
            None => (Change::Keep, Reason::Steady),
        }
    }

    /// The lease with more memory, if it needs some and there is some. Notes what there is not.
    fn grow_memory(
        &mut self,
        held: &Lease,
        room: &ResourceVector,
        waiting: bool,
        policy: &AdjustmentPolicy,
        now: Time,
    ) -> Option<ResourceVector> {
        self.short_of = Bytes::ZERO;
        let track = self.memory.as_ref()?;
        let rising = track.is_rising(policy.ahead, now);
        // One that rests can have a reserve as long as nobody else has a use for it.
        if !rising && (waiting || now.since(self.changed) < policy.settle) {
            return None;
        }
        let memory = held.vector.memory;
        let growth = sizing::grown_memory(policy, &self.subject, track, memory, waiting, now)?;
        let missing = growth.to.saturating_sub(memory);
        let more = missing.min(room.memory);
        let more = if more < missing.min(LEAST_STEP) { Bytes::ZERO } else { more };
        let grown = memory.saturating_add(more);
        if rising {
            self.short_of = growth.enough.saturating_sub(grown);
        }
        (more > Bytes::ZERO).then(|| ResourceVector { memory: grown, ..held.vector.clone() })
    }

    /// The lease without what it holds beyond its reservation and does not need now.
    fn without_excess(&self, held: &ResourceVector, policy: &AdjustmentPolicy, now: Time) -> Option<ResourceVector> {
        let reserved = &self.subject.reserved;
        let mut kept = ResourceVector { cpu: held.cpu.min(reserved.cpu.max(self.subject.minimum.cpu)), ..held.clone() };
        if let Some(track) = self.memory.as_ref().filter(|track| !track.is_rising(policy.ahead, now)) {
            kept.memory = sizing::without_excess(&self.subject, held.memory, track.most);
        }
        (kept != *held).then_some(kept)
    }

    /// Begins or ends to throttle it.
    fn throttle(&mut self, held: &ResourceVector, now: Time) -> Option<Change> {
        let is_short = self.short_of > Bytes::ZERO;
        match self.throttle {
            Throttle::Never
                if self.subject.priority == Priority::Batch && self.meets_limit(held.memory, THROTTLE_FOR) =>
            {
                self.throttle = Throttle::Since(now);
                Some(Change::Throttle(held.cpu.scale(THROTTLED).max(CpuMillis(1))))
            }
            Throttle::Since(at) if !is_short || now.since(at) >= THROTTLE_FOR => {
                self.throttle = if is_short { Throttle::Over } else { Throttle::Never };
                Some(Change::Unthrottle)
            }
            Throttle::Over if !is_short => {
                self.throttle = Throttle::Never;
                None
            }
            _ => None,
        }
    }

    fn grow_rates(
        &self,
        held: &Lease,
        room: &ResourceVector,
        waiting: bool,
        policy: &AdjustmentPolicy,
        now: Time,
    ) -> Option<ResourceVector> {
        let (subject, vector) = (&self.subject, &held.vector);
        // Beyond its reservation only where that helps and takes nothing from anybody.
        let beyond = subject.cpu_is_limited && !waiting && now.since(self.changed) >= policy.settle;
        let most_cpu = match (beyond, subject.maximum.cpu) {
            (false, _) => subject.reserved.cpu,
            (true, CpuMillis::ZERO) => CpuMillis(u64::MAX),
            (true, most) => most.max(subject.reserved.cpu),
        };
        let within = |held: u64, room: u64, most: u64| most.min(held.saturating_add(room));
        let cpu = within(vector.cpu.get(), room.cpu.get(), most_cpu.get());
        let io = within(vector.io.get(), room.io.get(), subject.reserved.io.get());
        let mut grown = vector.clone();
        grown.cpu = sizing::grown_rate(&self.cpu, vector.cpu.get(), cpu).map_or(vector.cpu, CpuMillis);
        grown.io = sizing::grown_rate(&self.io, vector.io.get(), io).map_or(vector.io, BytesPerSecond);
        (grown != *vector).then_some(grown)
    }

    fn shrink(&self, held: &ResourceVector, policy: &AdjustmentPolicy, now: Time) -> Option<ResourceVector> {
        let patience = policy.patience(self.subject.remaining(self.since, now));
        if now.since(self.changed) < policy.settle || now.since(self.since) < patience {
            return None;
        }
        let is_early = now.since(self.since) < self.subject.need.duration;
        let memory = self.memory.as_ref().filter(|track| now.since(track.record_at) >= patience);
        let memory = memory.map(|track| (track, is_early));
        sizing::shrunk(policy, &self.subject, held, memory, &self.cpu, &self.io)
    }

    /// True if it is short and will meet its limit within this time.
    fn meets_limit(&self, limit: Bytes, within: Duration) -> bool {
        let Some(track) = self.memory.as_ref().filter(|_| self.short_of > Bytes::ZERO) else { return false };
        limit.saturating_sub(track.now).get() as f64 <= track.speed * within.as_secs_f64()
    }

    fn next(&self, limit: Bytes, policy: &AdjustmentPolicy) -> Duration {
        match &self.memory {
            // At its maximum there is nothing to be in time for.
            Some(track) if self.subject.memory_is_limited && limit < self.subject.most_memory() => {
                policy.interval(limit.saturating_sub(track.now), limit)
            }
            _ => policy.longest_interval,
        }
    }
}
