//! The runs that are in flight on this worker, from their claim to their confirmed completion.

use std::collections::HashMap;
use std::sync::Arc;

use forecastle_admission::{LeaseId, Pool};
use forecastle_broker::Delivery;
use forecastle_protos::ids::RunId;
use forecastle_resources::{Priority, ResourceVector};

use crate::assignment::{Assignment, AttemptKey};
use crate::execution::UsageNow;
use crate::leases::Lease;
use crate::stop::{StopReason, StopSignal};

/// One run.
#[derive(Debug)]
pub(crate) struct LiveRun {
    assignment: Arc<Assignment>,
    /// `None` for a run that is only answered, and once it has ended.
    lease: Option<LeaseId>,
    stop: StopSignal,
    usage: UsageNow,
    since_unix_ms: u64,
    claim_confirmed: bool,
    /// The same attempt, offered again before the claim was confirmed.
    repeated: Vec<Delivery>,
}

impl LiveRun {
    pub(crate) fn new(
        assignment: Arc<Assignment>,
        lease: Option<&Lease>,
        stop: StopSignal,
        usage: UsageNow,
        since_unix_ms: u64,
    ) -> Self {
        let lease = lease.map(Lease::id);
        Self { assignment, lease, stop, usage, since_unix_ms, claim_confirmed: false, repeated: Vec::new() }
    }
}

/// A run as load reports tell it.
#[derive(Debug, Clone)]
pub(crate) struct RunSnapshot {
    /// Its id.
    pub(crate) run: RunId,
    /// What it runs.
    pub(crate) assignment: Arc<Assignment>,
    /// What it holds; nothing once it has ended.
    pub(crate) held: ResourceVector,
    /// Since when, milliseconds since 1970.
    pub(crate) since_unix_ms: u64,
    /// What it uses; read when the report is written.
    pub(crate) usage: UsageNow,
}

impl PartialEq for RunSnapshot {
    /// What is used moves all the time and is nobody's news.
    fn eq(&self, other: &Self) -> bool {
        self.run == other.run && self.held == other.held
    }
}

/// What a priority has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShareSnapshot {
    pub(crate) priority: Priority,
    pub(crate) guaranteed: ResourceVector,
    /// Entries that are zero are not bounded.
    pub(crate) maximum: ResourceVector,
    pub(crate) held: ResourceVector,
}

/// What is in flight, as others see it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// True once no more offers are taken.
    pub(crate) draining: bool,
    /// What nobody holds.
    pub(crate) free: ResourceVector,
    /// What all leases hold.
    pub(crate) held: ResourceVector,
    /// What each priority has, in the order of priorities.
    pub(crate) shares: Vec<ShareSnapshot>,
    /// The runs whose completion is not confirmed yet.
    pub(crate) runs: Vec<RunSnapshot>,
    /// Attempts in hand that are not claimed.
    pub(crate) offers: Vec<AttemptKey>,
}

/// All of them. A run is in both maps or in none.
#[derive(Debug, Default)]
pub(crate) struct LiveRuns {
    runs: HashMap<RunId, LiveRun>,
    by_attempt: HashMap<AttemptKey, RunId>,
}

impl LiveRuns {
    pub(crate) fn insert(&mut self, id: RunId, run: LiveRun) {
        self.by_attempt.insert(run.assignment.key(), id);
        self.runs.insert(id, run);
    }

    /// True if a run of this attempt is in flight.
    pub(crate) fn is_live(&self, key: AttemptKey) -> bool {
        self.by_attempt.contains_key(&key)
    }

    /// Keeps an offer of an attempt that is live until its claim is confirmed; gives it back if it is already.
    pub(crate) fn keep_repeated(&mut self, key: AttemptKey, delivery: Delivery) -> Option<Delivery> {
        match self.by_attempt.get(&key).and_then(|id| self.runs.get_mut(id)) {
            Some(run) if !run.claim_confirmed => {
                run.repeated.push(delivery);
                None
            }
            _ => Some(delivery),
        }
    }

    /// The ledger answers for this run from now on. Offers of it that were kept are done with.
    pub(crate) fn confirm_claim(&mut self, id: RunId) -> Vec<Delivery> {
        let Some(run) = self.runs.get_mut(&id) else { return Vec::new() };
        run.claim_confirmed = true;
        std::mem::take(&mut run.repeated)
    }

    /// It holds nothing any more.
    pub(crate) fn end(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.lease = None;
        }
    }

    /// Nothing more is to be said of it. Answers with offers of it that nobody claimed.
    pub(crate) fn remove(&mut self, id: RunId) -> Vec<Delivery> {
        let Some(run) = self.runs.remove(&id) else { return Vec::new() };
        self.by_attempt.remove(&run.assignment.key());
        run.repeated
    }

    /// Tells a run to stop; `false` if there is none of that id.
    pub(crate) fn stop(&self, id: RunId, reason: StopReason) -> bool {
        let run = self.runs.get(&id);
        if let Some(run) = run {
            run.stop.stop(reason);
        }
        run.is_some()
    }

    /// Tells the run that holds `lease` to stop, and answers with its id unless it had been told before.
    pub(crate) fn stop_lease(&self, lease: LeaseId, reason: StopReason) -> Option<RunId> {
        let (id, run) = self.runs.iter().find(|(_, run)| run.lease == Some(lease))?;
        let news = run.stop.reason().is_none();
        run.stop.stop(reason);
        news.then_some(*id)
    }

    /// Tells every run to stop.
    pub(crate) fn stop_all(&self, reason: &StopReason) {
        self.runs.values().for_each(|run| run.stop.stop(reason.clone()));
    }

    /// What others see.
    pub(crate) fn snapshot(&self, pool: &Pool, draining: bool) -> Snapshot {
        let held = |run: &LiveRun| run.lease.and_then(|id| pool.lease(id)).map(|lease| lease.vector.clone());
        let mut runs: Vec<_> = self
            .runs
            .iter()
            .map(|(id, run)| RunSnapshot {
                run: *id,
                assignment: Arc::clone(&run.assignment),
                held: held(run).unwrap_or_default(),
                since_unix_ms: run.since_unix_ms,
                usage: run.usage.clone(),
            })
            .collect();
        runs.sort_by_key(|run| run.run);
        let share = |priority| ShareSnapshot {
            priority,
            guaranteed: pool.shares().guaranteed(priority).clone(),
            maximum: pool.shares().maximum(priority).clone(),
            held: pool.held_by(priority).clone(),
        };
        let shares = Priority::ALL.map(share).into();
        Snapshot { draining, free: pool.free(), held: pool.held(), shares, runs, offers: Vec::new() }
    }
}
