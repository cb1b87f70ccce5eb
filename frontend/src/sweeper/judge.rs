//! The judge: what the ledger says against what load reports say, and the decisions that follow.
//!
//! | the ledger has | load reports | queues | decision |
//! | --- | --- | --- | --- |
//! | a claim | its worker is silent for the grace | | *lost* |
//! | a claim | its worker lives and names no such run | no event waits | *lost*, once that is certain |
//! | a claim past its time limit and the grace | its worker names the run, and agrees | | *overdue*: it is told to stop |
//! | a claim that is overdue | still so | | *late*, once that is certain |
//! | a run that has ended, or is not known | a worker names it, at three looks in a row | | none: *unknown*, for the service to look at |
//! | an unclaimed attempt | nobody has it in hand, and nobody is silent | its own is empty, no event waits | *stuck*, once that is certain |
//!
//! Certain is what looks so at three looks in a row and for the grace (see `Suspicions`).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use forecastle_protos::ids::{RunId, ShardId, WorkerId};
use forecastle_protos::{names, v1};
use serde_json::json;
use tokio::time::Instant;

use super::suspicion::Suspicions;
use crate::fleet::{FleetView, Worker};
use crate::ledger::{Claim, Decision, DecisionKind, Unclaimed};

/// All there is to judge by, as of one look.
pub(super) struct Scene<'a> {
    /// Who lives, and what they hold.
    pub(super) fleet: &'a FleetView,
    /// What the ledger has as running.
    pub(super) claims: &'a [Claim],
    /// What it has as waiting in a queue for at least the grace.
    pub(super) unclaimed: &'a [Unclaimed],
    /// The queues of those that are shown empty.
    pub(super) empty: &'a HashSet<String>,
    /// True if the queue of events is shown empty: no word of a worker waits there.
    pub(super) no_event_waits: bool,
    /// When.
    pub(super) now: Instant,
    /// The same by the machine's clock, milliseconds since 1970.
    pub(super) now_ms: u64,
}

/// What follows from a look.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// For the ledger to carry out.
    pub(super) decisions: Vec<Decision>,
    /// Runs that are past their time limit: their workers are told to stop them, at each look.
    pub(super) overdue: Vec<RunId>,
    /// Runs that workers have and the ledger does not have as running.
    pub(super) unknown: Vec<(RunId, ShardId)>,
}

/// Looks, and remembers what it saw.
pub(super) struct Judge {
    grace: Duration,
    /// When a claim was first seen.
    first_seen: HashMap<RunId, Instant>,
    forgotten: Suspicions<RunId>,
    overdue: Suspicions<RunId>,
    stuck: Suspicions<(ShardId, u32)>,
    unknown: Suspicions<(RunId, ShardId)>,
}

/// A lease as a worker's last report has it, with how long the run had lasted by then, by that worker's clock.
struct Held<'a> {
    lease: &'a v1::LeaseReport,
    age: Duration,
}

impl Judge {
    /// A judge who has seen nothing.
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            grace,
            first_seen: HashMap::new(),
            forgotten: Suspicions::default(),
            overdue: Suspicions::default(),
            stuck: Suspicions::default(),
            unknown: Suspicions::default(),
        }
    }

    /// Forgets what was seen: nobody could be heard for a while.
    pub(super) fn begin_anew(&mut self) {
        self.first_seen.clear();
        self.forgotten.clear();
        self.overdue.clear();
        self.stuck.clear();
        self.unknown.clear();
    }

    /// What follows from `scene`.
    pub(super) fn look(&mut self, scene: &Scene<'_>) -> Verdict {
        let live: HashSet<RunId> = scene.claims.iter().map(|claim| claim.run.run).collect();
        self.first_seen.retain(|run, _| live.contains(run));
        for run in &live {
            self.first_seen.entry(*run).or_insert(scene.now);
        }
        let leases = leases(scene.fleet);
        // What has just ended stands in reports a moment longer.
        let unknown = leases
            .iter()
            .filter(|(run, _)| !live.contains(*run))
            .filter_map(|(run, held)| Some((*run, held.lease.shard_id.parse().ok()?)));
        let unknown = self.unknown.look(unknown, Duration::ZERO, scene.now);
        let (mut lost, mut forgotten, mut overdue) = (Vec::new(), Vec::new(), Vec::new());
        for claim in scene.claims {
            let worker = scene.fleet.workers.get(&claim.run.worker);
            match worker.filter(|worker| !self.is_silent(worker, scene.now)) {
                None if self.seen_for(claim, scene.now) >= self.grace => {
                    lost.push(self.silent(claim, worker, leases.get(&claim.run.run), scene));
                }
                None => {}
                Some(_) => match leases.get(&claim.run.run) {
                    None if scene.no_event_waits => forgotten.push(claim),
                    Some(held) if self.is_overdue(claim, held, scene) => overdue.push((claim, held)),
                    None | Some(_) => {}
                },
            }
        }
        let mut verdict = Verdict {
            decisions: lost,
            overdue: overdue.iter().map(|(claim, _)| claim.run.run).collect(),
            unknown: unknown.into_keys().collect(),
        };

        let certain = self.forgotten.look(forgotten.iter().map(|claim| claim.run.run), self.grace, scene.now);
        for claim in forgotten {
            if let Some(lasting) = certain.get(&claim.run.run) {
                let why =
                    format!("worker {} lives and has known nothing of the run for {lasting:.0?}", claim.run.worker);
                let evidence = json!({ "unknown_for_ms": millis(*lasting) });
                verdict.decisions.push(about(claim, DecisionKind::Lost, why, &evidence, None, scene));
            }
        }

        let certain = self.overdue.look(verdict.overdue.iter().copied(), self.grace, scene.now);
        for (claim, held) in overdue {
            let (age, limit) = (held.age, Duration::from_millis(claim.timeout_ms));
            let evidence = json!({ "limit_ms": claim.timeout_ms, "age_ms": millis(age) });
            verdict.decisions.push(match certain.get(&claim.run.run) {
                None => {
                    let why = format!("the run is past its limit of {limit:?}; its worker is told to stop it");
                    about(claim, DecisionKind::Overdue, why, &evidence, Some(held), scene)
                }
                Some(lasting) => {
                    let why = format!("the run is past its limit of {limit:?} and did not stop for {lasting:.0?}");
                    about(claim, DecisionKind::Late, why, &evidence, Some(held), scene)
                }
            });
        }
        verdict.decisions.extend(self.stuck(scene));
        verdict
    }

    fn is_silent(&self, worker: &Worker, now: Instant) -> bool {
        now.saturating_duration_since(worker.heard) >= self.grace
    }

    /// How long the claim is known. Its worker's first report may still be under way.
    fn seen_for(&self, claim: &Claim, now: Instant) -> Duration {
        self.first_seen.get(&claim.run.run).map_or(Duration::ZERO, |seen| now.saturating_duration_since(*seen))
    }

    fn silent(&self, claim: &Claim, worker: Option<&Worker>, held: Option<&Held<'_>>, scene: &Scene<'_>) -> Decision {
        let id = claim.run.worker;
        let silent = worker.map(|worker| scene.now.saturating_duration_since(worker.heard));
        let why = match silent {
            Some(silent) => format!("worker {id} has sent no load report for {silent:.0?}"),
            None => format!("worker {id} is not heard of, for at least {:.0?}", self.grace),
        };
        let evidence = json!({ "silent_ms": silent.map(millis), "grace_ms": millis(self.grace) });
        about(claim, DecisionKind::Lost, why, &evidence, held, scene)
    }

    /// Whether a run is past its limit and the grace, both by this machine's clock and by its worker's: either may have
    /// jumped.
    fn is_overdue(&self, claim: &Claim, held: &Held<'_>, scene: &Scene<'_>) -> bool {
        let bound = Duration::from_millis(claim.timeout_ms).saturating_add(self.grace);
        let age = Duration::from_millis(scene.now_ms.saturating_sub(claim.run.claimed_ms));
        claim.timeout_ms > 0 && age > bound && held.age > bound
    }

    fn stuck(&mut self, scene: &Scene<'_>) -> Vec<Decision> {
        // A message that is neither in its queue nor in the ledger as claimed may be in a worker's hands, or the word of
        // it may be on its way. Whoever is silent may hold anything.
        let in_hand = in_hand(scene.fleet);
        let silent: HashSet<&str> = scene
            .fleet
            .workers
            .values()
            .filter(|worker| self.is_silent(worker, scene.now))
            .map(|worker| worker.report.fleet.as_str())
            .collect();
        let suspects: Vec<_> = scene
            .unclaimed
            .iter()
            .filter(|attempt| {
                let fleet = names::parse_shard_queue(&attempt.queue).map(|(fleet, ..)| fleet);
                scene.no_event_waits
                    && scene.empty.contains(&attempt.queue)
                    && !in_hand.contains(&(attempt.shard, attempt.attempt))
                    && fleet.is_none_or(|fleet| !silent.contains(fleet))
            })
            .collect();
        let keys = suspects.iter().map(|attempt| (attempt.shard, attempt.attempt));
        let certain = self.stuck.look(keys, self.grace, scene.now);
        suspects
            .into_iter()
            .filter_map(|attempt| {
                let lasting = certain.get(&(attempt.shard, attempt.attempt))?;
                Some(Decision {
                    kind: DecisionKind::Stuck,
                    shard: attempt.shard,
                    attempt: attempt.attempt,
                    run: None,
                    worker: None,
                    why: format!(
                        "nobody has claimed it, queue {} has been empty and no worker has had it for {lasting:.0?}",
                        attempt.queue
                    ),
                    evidence: json!({
                        "queue": attempt.queue,
                        "missing_for_ms": millis(*lasting),
                        "released_unix_ms": attempt.released_ms,
                    })
                    .to_string(),
                    usage: None,
                    at_ms: scene.now_ms,
                })
            })
            .collect()
    }
}

/// Every lease that the last reports name; one that names no run says nothing.
fn leases(fleet: &FleetView) -> HashMap<RunId, Held<'_>> {
    let of = |worker: &Worker, lease: &v1::LeaseReport| {
        Duration::from_millis(worker.report.at_unix_ms.saturating_sub(lease.since_unix_ms))
    };
    let held = fleet.workers.values().flat_map(|worker| {
        worker
            .report
            .leases
            .iter()
            .filter_map(move |lease| Some((lease.run_id.parse().ok()?, Held { lease, age: of(worker, lease) })))
    });
    held.collect()
}

/// Every attempt that a worker has in hand, claimed or not.
fn in_hand(fleet: &FleetView) -> HashSet<(ShardId, u32)> {
    fleet
        .workers
        .values()
        .flat_map(|worker| {
            let offers = worker.report.offers.iter().map(|offer| (&offer.shard_id, offer.attempt));
            offers.chain(worker.report.leases.iter().map(|lease| (&lease.shard_id, lease.attempt)))
        })
        .filter_map(|(shard, attempt)| Some((shard.parse().ok()?, attempt)))
        .collect()
}

fn about(
    claim: &Claim,
    kind: DecisionKind,
    why: String,
    evidence: &serde_json::Value,
    held: Option<&Held<'_>>,
    scene: &Scene<'_>,
) -> Decision {
    let worker: WorkerId = claim.run.worker;
    Decision {
        kind,
        shard: claim.run.shard,
        attempt: claim.run.attempt,
        run: Some(claim.run.run),
        worker: Some(worker),
        why,
        evidence: evidence.to_string(),
        usage: held.map(|held| v1::Usage {
            memory_bytes: held.lease.memory_bytes_now,
            duration_ms: millis(held.age),
            source: "load-report".to_owned(),
            ..Default::default()
        }),
        at_ms: scene.now_ms,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
