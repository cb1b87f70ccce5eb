//! A clairvoyant packer to compare with: it sees all workers and all waiting jobs at once, however many there are, and it
//! asks no broker. Whenever there is room it goes through what waits, by priority and then by age, and starts whatever
//! fits somewhere, where least is left beside it (best fit: Johnson, "Near-optimal bin packing algorithms", MIT 1973).
//! It keeps nothing free for anybody, so large jobs starve with it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use forecastle_resources::{Priority, ResourceVector};

use super::load::Job;
use super::report::{Operations, Report};
use crate::time::Time;

/// Packs the jobs onto this many workers of this capacity. No shares, no priorities: they could only cost it.
pub fn pack(workers: usize, capacity: &ResourceVector, jobs: &[Job]) -> Report {
    let mut packer = Packer {
        capacity,
        jobs,
        free: vec![capacity.clone(); workers],
        waiting: BTreeSet::new(),
        ends: BinaryHeap::new(),
        starts: vec![None; jobs.len()],
    };
    let mut releases: Vec<usize> = (0..jobs.len()).collect();
    releases.sort_by_key(|job| jobs[*job].released);
    let mut releases = releases.into_iter().peekable();
    let mut makespan = Time::START;
    loop {
        let next_end = packer.ends.peek().map(|Reverse((end, _, _))| *end);
        let next_release = releases.peek().map(|job| jobs[*job].released);
        let Some(now) = [next_end, next_release].into_iter().flatten().min() else { break };
        let mut changed = BTreeSet::new();
        while let Some((worker, job)) = packer.ended(now) {
            packer.free[worker] = packer.free[worker].saturating_add(&jobs[job].vector);
            makespan = now;
            changed.insert(worker);
        }
        // What waited may fit where something ended; what is new, anywhere.
        packer.start_waiting(now, &changed);
        let before = std::mem::take(&mut packer.waiting);
        while let Some(job) = releases.next_if(|job| jobs[*job].released <= now) {
            let key = packer.key(job);
            packer.waiting.insert(key);
        }
        packer.start_waiting(now, &(0..workers).collect());
        packer.waiting.extend(before);
    }
    Report {
        starts: packer.starts,
        makespan: makespan.0,
        operations: Operations::default(),
        longest_in_hand: std::time::Duration::ZERO,
        most_in_hand: 0,
        preempted: 0,
    }
}

/// By priority, then by age.
type Key = (Priority, Time, usize);

struct Packer<'a> {
    capacity: &'a ResourceVector,
    jobs: &'a [Job],
    free: Vec<ResourceVector>,
    waiting: BTreeSet<Key>,
    ends: BinaryHeap<Reverse<(Time, usize, usize)>>,
    starts: Vec<Option<Time>>,
}

impl Packer<'_> {
    fn key(&self, job: usize) -> Key {
        (self.jobs[job].priority, self.jobs[job].released, job)
    }

    /// One that has ended by now.
    fn ended(&mut self, now: Time) -> Option<(usize, usize)> {
        let Reverse((end, worker, job)) = *self.ends.peek()?;
        (end <= now).then(|| {
            self.ends.pop();
            (worker, job)
        })
    }

    fn start_waiting(&mut self, now: Time, workers: &BTreeSet<usize>) {
        if workers.is_empty() {
            return;
        }
        let waiting: Vec<Key> = self.waiting.iter().copied().collect();
        for key in waiting {
            let job = &self.jobs[key.2];
            let left = |worker: usize| self.free[worker].saturating_sub(&job.vector);
            let best =
                workers.iter().copied().filter(|worker| job.vector.fits_in(&self.free[*worker])).min_by(|a, b| {
                    left(*a).dominant_share(self.capacity).total_cmp(&left(*b).dominant_share(self.capacity))
                });
            let Some(worker) = best else { continue };
            self.free[worker] = left(worker);
            self.starts[key.2] = Some(now);
            self.ends.push(Reverse((now.after(job.lasts), worker, key.2)));
            self.waiting.remove(&key);
        }
    }
}
