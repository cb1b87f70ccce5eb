//! What must hold at the end, whatever happened.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use forecastle_frontend::intake::Submission;
use forecastle_frontend::ledger::sqlite::SqliteLedger;
use forecastle_frontend::ledger::{EventKind, Ledger as _, RecordedEvent};
use forecastle_protos::ids::{RequestId, RunId, ShardId};
use forecastle_protos::v1::{self, Outcome, RequestState};

use crate::frontend_role::Counter;
use crate::labour::Record;
use crate::producer::{Order, TENANT};

/// What is looked at.
pub struct Evidence<'a> {
    /// The ledger's files.
    pub ledger: &'a SqliteLedger,
    /// The API.
    pub counter: &'a Counter,
    /// What was asked for.
    pub orders: &'a [Order],
    /// What was done by anybody.
    pub record: &'a Record,
    /// Deduplicated history.
    pub history: &'a [Told],
}

/// A run as history tells it, without duplicates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The run.
    pub run: RunId,
    /// Its shard.
    pub shard: String,
    /// Whether it was the one that counted.
    pub winning: bool,
    /// The ledger's word that this is.
    pub ledger_seq: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What does not hold.
    pub violations: Vec<String>,
    /// How requests ended.
    pub requests: BTreeMap<RequestState, u64>,
    /// Shards that succeeded.
    pub shards: u64,
    /// Runs that ended.
    pub runs: u64,
}

/// The ledger's answers, without simulated time.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

/// Looks at everything.
pub async fn audit(evidence: &Evidence<'_>) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let events = now(evidence.ledger.events_after(0, u32::MAX))?;
    findings.runs = events.len() as u64;
    let winners = winners(&events, &mut findings.violations);
    for (number, order) in evidence.orders.iter().enumerate() {
        if !order.is_acknowledged() {
            findings.violations.push(format!("order {number} was never acknowledged"));
            continue;
        }
        // Whoever submits the same again is told which request it is, or that it is a new one: then it was lost.
        let again = Submission { tenant: TENANT.to_owned(), body: order.body.clone(), reply: None };
        let taken = evidence.counter.intake.submit(again).await?;
        if taken.accepted.created {
            findings.violations.push(format!("order {number} was acknowledged and lost"));
            continue;
        }
        let Some(status) = now(evidence.ledger.status(taken.request))? else {
            findings.violations.push(format!("order {number} has no status"));
            continue;
        };
        *findings.requests.entry(status.state()).or_default() += 1;
        request(evidence, number, order, taken.request, &status, &winners, &mut findings)?;
    }
    ledger_is_at_rest(evidence, &mut findings)?;
    history_agrees(&events, evidence.history, &mut findings.violations);
    Ok(findings)
}

/// The run that won, of every shard that succeeded; each once.
pub fn winners(events: &[RecordedEvent], violations: &mut Vec<String>) -> BTreeMap<ShardId, RunId> {
    let mut winners = BTreeMap::new();
    for recorded in events.iter().filter(|recorded| recorded.winning) {
        if recorded.event.outcome() != Some(Outcome::Succeeded) {
            violations.push(format!("run {} won without success", recorded.event.run));
        }
        if let Some(other) = winners.insert(recorded.event.shard, recorded.event.run) {
            let (shard, run) = (recorded.event.shard, recorded.event.run);
            violations.push(format!("shard {shard} succeeded twice, with {other} and {run}"));
        }
    }
    winners
}

fn request(
    evidence: &Evidence<'_>,
    number: usize,
    order: &Order,
    request: RequestId,
    status: &v1::RequestStatus,
    winners: &BTreeMap<ShardId, RunId>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let violations = &mut findings.violations;
    let state = status.state();
    if !matches!(state, RequestState::Succeeded | RequestState::Failed | RequestState::Cancelled) {
        violations.push(format!("order {number} (request {request}) has not ended: {status:?}"));
    }
    if order.over_amqp {
        match order.replies().last() {
            None => violations.push(format!("order {number} (request {request}) got no final reply")),
            Some(reply) if reply.status.as_ref().map(v1::RequestStatus::state) != Some(state) => {
                violations.push(format!("order {number} ended as {state:?} and was told {reply:?}"));
            }
            Some(_) => {}
        }
    }
    if state == RequestState::Failed && status.error.is_none() {
        violations.push(format!("order {number} (request {request}) failed and nobody says why"));
    }
    if state != RequestState::Succeeded {
        return Ok(());
    }
    let results = now(evidence.ledger.manifest(request, None, u32::MAX))?;
    let expected: u32 = status.stages.iter().map(|stage| stage.shards).sum();
    let shards: BTreeSet<&str> = results.iter().map(|result| &*result.shard_id).collect();
    if shards.len() != expected as usize || results.len() != shards.len() {
        let (named, different) = (results.len(), shards.len());
        violations.push(format!(
            "request {request} has {expected} shards, and its manifest names {named}, {different} of them different"
        ));
    }
    for stage in status.stages.iter().filter(|stage| stage.succeeded != stage.shards) {
        violations.push(format!("request {request} succeeded with {stage:?}"));
    }
    for result in &results {
        findings.shards += 1;
        let (shard, run): (ShardId, RunId) = (result.shard_id.parse()?, result.run_id.parse()?);
        if evidence.record.done_by(run) != Some(shard) {
            violations.push(format!("the manifest has shard {shard} done by run {run}, which nobody did"));
        }
        if winners.get(&shard) != Some(&run) {
            violations.push(format!("shard {shard}: the manifest has run {run}, the log {:?}", winners.get(&shard)));
        }
    }
    Ok(())
}

/// Nothing is held and nothing is under way.
fn ledger_is_at_rest(evidence: &Evidence<'_>, findings: &mut Findings) -> anyhow::Result<()> {
    let claims = now(evidence.ledger.claims())?;
    let open = now(evidence.ledger.open_work())?;
    let unplanned = now(evidence.ledger.unplanned(u32::MAX))?;
    let violations = &mut findings.violations;
    if !claims.is_empty() {
        violations.push(format!("the ledger still has runs: {claims:?}"));
    }
    if !(open.in_flight.is_empty() && open.ready.is_empty() && open.backing_off.is_empty() && open.runs.is_empty()) {
        violations.push(format!("the ledger still has work: {open:?}"));
    }
    if !unplanned.is_empty() {
        violations.push(format!("requests are not planned: {unplanned:?}"));
    }
    let left_behind = now(evidence.ledger.left_behind(u32::MAX))?;
    if !left_behind.is_empty() {
        violations.push(format!("nobody was told of runs that were given up: {left_behind:?}"));
    }
    Ok(())
}

/// History has every run of the ledger's once, as the ledger has it.
pub fn history_agrees(events: &[RecordedEvent], history: &[Told], violations: &mut Vec<String>) {
    // The latest word about each run.
    let mut latest: BTreeMap<RunId, &RecordedEvent> = BTreeMap::new();
    for recorded in events {
        if let EventKind::Completed(completed) = &recorded.event.kind
            && !completed.request_type.is_empty()
            && !completed.unit.is_empty()
        {
            latest.insert(recorded.event.run, recorded);
        }
    }
    let told: BTreeMap<RunId, &Told> = history.iter().map(|row| (row.run, row)).collect();
    for (run, recorded) in &latest {
        match told.get(run) {
            None => violations.push(format!("run {run} is not in history")),
            Some(row) if row.winning != recorded.winning || i64::try_from(row.ledger_seq) != Ok(recorded.seq) => {
                violations.push(format!("history has an old word about run {run}: {row:?} for {recorded:?}"));
            }
            Some(_) => {}
        }
    }
    for run in told.keys().filter(|run| !latest.contains_key(run)) {
        violations.push(format!("history has run {run}, which the ledger does not know"));
    }
    let mut won = BTreeSet::new();
    for row in history.iter().filter(|row| row.winning) {
        if !won.insert(&row.shard) {
            violations.push(format!("history has shard {} succeed twice", row.shard));
        }
    }
}
