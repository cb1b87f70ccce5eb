//! The allocation table: what each worker holds, for which runs, since when.
//!
//! It is derived anew whenever it is asked for, from what the ledger knows of claims and from each worker's last load
//! report, so that it can neither leak nor disagree with them for longer than a report takes.

use std::collections::HashMap;
use std::time::Duration;

use forecastle_protos::ids::{RunId, ShardId, WorkerId};
use forecastle_protos::v1;
use forecastle_resources::{Bytes, ResourceVector};
use tokio::time::Instant;

use crate::fleet::FleetView;
use crate::ledger::{Claim, Error, Ledger};

/// Who says that something is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The ledger has the claim, and the worker's last report names the lease.
    Confirmed,
    /// The ledger has the claim; no report names it yet, or any more.
    Claimed,
    /// A report names the lease; the ledger has not heard of the claim yet, or has recorded its end.
    Reported,
}

/// One run's part of a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Allocation {
    /// The run.
    pub run: RunId,
    /// The shard.
    pub shard: ShardId,
    /// The attempt.
    pub attempt: u32,
    /// What is held: as reported, else as reserved.
    pub held: ResourceVector,
    /// Since when, milliseconds since 1970: by the worker's clock if it reported it, else by the ledger's.
    pub since_ms: u64,
    /// Memory in use, as of the worker's last report; `None` if that does not name the run.
    pub memory_now: Option<Bytes>,
    /// Who says so.
    pub standing: Standing,
    /// True if the run is to stop.
    pub unwanted: bool,
}

/// What one worker holds.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerAllocations {
    /// The worker.
    pub worker: WorkerId,
    /// Its last report; `None` if it was never heard of, or so long ago that it is forgotten.
    pub report: Option<v1::LoadReport>,
    /// How long ago that arrived.
    pub silent_for: Option<Duration>,
    /// Its runs, the oldest first.
    pub allocations: Vec<Allocation>,
}

impl WorkerAllocations {
    /// All that it holds.
    pub fn held(&self) -> ResourceVector {
        self.allocations.iter().fold(ResourceVector::default(), |sum, allocation| sum.saturating_add(&allocation.held))
    }
}

/// The table as of now, sorted by worker's name and id.
pub async fn read(ledger: &dyn Ledger, fleet: &FleetView, now: Instant) -> Result<Vec<WorkerAllocations>, Error> {
    Ok(table(fleet, &ledger.claims().await?, now))
}

/// The table from what reports and claims say.
pub fn table(fleet: &FleetView, claims: &[Claim], now: Instant) -> Vec<WorkerAllocations> {
    let mut by_worker: HashMap<WorkerId, WorkerAllocations> = HashMap::new();
    for (id, worker) in &fleet.workers {
        let allocations = worker.report.leases.iter().filter_map(reported).collect();
        let silent_for = Some(now.saturating_duration_since(worker.heard));
        let report = Some(worker.report.clone());
        by_worker.insert(*id, WorkerAllocations { worker: *id, report, silent_for, allocations });
    }
    for claim in claims {
        let worker = claim.run.worker;
        let known = by_worker.entry(worker).or_insert_with(|| WorkerAllocations {
            worker,
            report: None,
            silent_for: None,
            allocations: Vec::new(),
        });
        match known.allocations.iter_mut().find(|allocation| allocation.run == claim.run.run) {
            Some(allocation) => {
                allocation.standing = Standing::Confirmed;
                allocation.unwanted = claim.run.unwanted;
            }
            None => known.allocations.push(claimed(claim)),
        }
    }
    let mut table: Vec<_> = by_worker.into_values().collect();
    for worker in &mut table {
        worker.allocations.sort_by_key(|allocation| (allocation.since_ms, allocation.run));
    }
    let name = |worker: &WorkerAllocations| worker.report.as_ref().map(|report| report.worker_name.clone());
    table.sort_by_cached_key(|worker| (name(worker), worker.worker));
    table
}

/// A lease that a report names; one that names no run says nothing.
fn reported(lease: &v1::LeaseReport) -> Option<Allocation> {
    Some(Allocation {
        run: lease.run_id.parse().ok()?,
        shard: lease.shard_id.parse().ok()?,
        attempt: lease.attempt,
        held: lease.held.as_ref().map(Into::into).unwrap_or_default(),
        since_ms: lease.since_unix_ms,
        memory_now: Some(Bytes(lease.memory_bytes_now)),
        standing: Standing::Reported,
        unwanted: false,
    })
}

fn claimed(claim: &Claim) -> Allocation {
    Allocation {
        run: claim.run.run,
        shard: claim.run.shard,
        attempt: claim.run.attempt,
        held: claim.reservation.as_ref().map(|reservation| reservation.vector.clone()).unwrap_or_default(),
        since_ms: claim.run.claimed_ms,
        memory_now: None,
        standing: Standing::Claimed,
        unwanted: claim.run.unwanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::LiveRun;
    use forecastle_protos::ids::RequestId;
    use forecastle_resources::{CpuMillis, Reservation};

    #[test]
    fn claims_and_reports_make_one_table_and_each_run_stands_in_it_once() {
        let now = Instant::now();
        let (here, gone) = (WorkerId::new(), WorkerId::new());
        let shard = ShardId { request: RequestId::new(), stage: 0, index: 7 };
        let vector = ResourceVector::new(CpuMillis(500), Bytes::mib(64));
        let claim = |worker, unwanted| Claim {
            run: LiveRun { run: RunId::new(), shard, attempt: 1, worker, claimed_ms: 10, unwanted },
            reservation: Some(Reservation::new(vector.clone(), Duration::from_secs(1))),
            timeout_ms: 0,
        };
        let (both, only_claimed, lost) = (claim(here, true), claim(here, false), claim(gone, false));
        let lease = |run: RunId| v1::LeaseReport {
            run_id: run.to_string(),
            shard_id: shard.to_string(),
            attempt: 1,
            held: Some((&vector).into()),
            since_unix_ms: 5,
            memory_bytes_now: 77,
            ..Default::default()
        };
        let only_reported = RunId::new();
        let report = v1::LoadReport {
            worker_id: here.to_string(),
            worker_name: "north".to_owned(),
            sequence: 1,
            leases: vec![lease(both.run.run), lease(only_reported), v1::LeaseReport::default()],
            ..Default::default()
        };
        let mut fleet = FleetView::default();
        assert_eq!(fleet.hear(report.clone(), now), Ok(true));
        assert_eq!(fleet.hear(report, now), Ok(false), "the same report again");
        let table = table(&fleet, &[both.clone(), only_claimed.clone(), lost.clone()], now + Duration::from_secs(2));

        assert_eq!(table.iter().map(|w| w.worker).collect::<Vec<_>>(), [gone, here], "the nameless first");
        assert_eq!((table[0].silent_for, table[1].silent_for), (None, Some(Duration::from_secs(2))));
        let standing = |run| table[1].allocations.iter().find(|a| a.run == run).map(|a| (a.standing, a.unwanted));
        assert_eq!(table[1].allocations.len(), 3);
        assert_eq!(standing(both.run.run), Some((Standing::Confirmed, true)));
        assert_eq!(standing(only_claimed.run.run), Some((Standing::Claimed, false)));
        assert_eq!(standing(only_reported), Some((Standing::Reported, false)));
        assert_eq!(table[1].held().cpu, CpuMillis(1500));
        assert_eq!(table[0].held(), vector);
    }
}
