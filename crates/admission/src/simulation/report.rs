//! What came of a simulated run.

use std::time::Duration;

use forecastle_resources::{Resource, ResourceVector};

use super::load::Job;
use crate::time::Time;

/// What was asked of the broker, and what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Operations {
    /// Shards that it offered.
    pub deliveries: u64,
    /// Shards that were claimed: each a published claim and an acknowledgement.
    pub claims: u64,
    /// Offers that were returned.
    pub returns: u64,
    /// Consumers that were opened, those of the start included. A Raft operation on a quorum queue.
    pub opened: u64,
    /// Consumers that were closed. A Raft operation on a quorum queue.
    pub closed: u64,
}

impl Operations {
    /// Operations of all kinds for each claim; a claim that nothing stands in the way of needs three: the delivery, the
    /// published claim and the acknowledgement.
    pub fn per_claim(&self) -> f64 {
        let all = self.deliveries + 2 * self.claims + self.returns + self.opened + self.closed;
        all as f64 / self.claims.max(1) as f64
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// When each job started, the last time if it was preempted; in the order of the jobs. `None` if it never did.
    pub starts: Vec<Option<Time>>,
    /// When the last job ended.
    pub makespan: Duration,
    /// What the broker had to do.
    pub operations: Operations,
    /// The longest that an offer was in hand without being claimed.
    pub longest_in_hand: Duration,
    /// The most offers in hand that one worker kept.
    pub most_in_hand: usize,
    /// Runs that were stopped because they overran on borrowed capacity.
    pub preempted: u64,
}

impl Report {
    /// How long the job waited between its release and its start. `None` if it never started.
    pub fn waited(&self, jobs: &[Job], job: usize) -> Option<Duration> {
        self.starts[job].map(|start| start.since(jobs[job].released))
    }

    /// The longest that any of these jobs waited. `None` if one never started, or there are none.
    pub fn longest_wait(&self, jobs: &[Job], of: impl Fn(&Job) -> bool) -> Option<Duration> {
        let chosen = (0..jobs.len()).filter(|job| of(&jobs[*job]));
        chosen.map(|job| self.waited(jobs, job)).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// The part of `capacity` (of all workers together) that runs used of this resource up to `until`.
    pub fn utilisation(&self, jobs: &[Job], capacity: &ResourceVector, resource: &Resource, until: Duration) -> f64 {
        let used = |(job, start): (&Job, &Option<Time>)| {
            let time = start.map_or(Duration::ZERO, |start| job.lasts.min(Time(until).since(start)));
            job.vector.get(resource) as f64 * time.as_secs_f64()
        };
        let used: f64 = jobs.iter().zip(&self.starts).map(used).sum();
        used / (capacity.get(resource) as f64 * until.as_secs_f64())
    }
}

/// The resource of which all jobs together ask for the largest part of the capacity.
pub fn scarce(jobs: &[Job], capacity: &ResourceVector) -> Resource {
    let demand = |resource: &Resource| -> f64 {
        let used: f64 = jobs.iter().map(|job| job.vector.get(resource) as f64 * job.lasts.as_secs_f64()).sum();
        used / capacity.get(resource).max(1) as f64
    };
    if demand(&Resource::Memory) > demand(&Resource::Cpu) { Resource::Memory } else { Resource::Cpu }
}
