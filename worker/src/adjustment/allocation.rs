//! What one run holds, told to whoever watches, and the record of its changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forecastle_admission::adjustment::Reason;
use forecastle_admission::{LeaseId, Need};
use forecastle_protos::v1;
use forecastle_resources::{Bytes, Priority, ResourceVector};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::adjustment::adjuster::Adjuster;
use crate::assignment::Assignment;
use crate::clock::now_unix_ms;
use crate::leases::Lease;
use crate::stop::StopSignal;

/// The most changes that are told one by one; what comes after them is counted.
pub const MOST_CHANGES: usize = 64;

/// What one run holds. Cheap to clone; clones are of the same run.
#[derive(Debug, Clone)]
pub struct Allocation(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    told: watch::Sender<ResourceVector>,
    ledger: Mutex<Ledger>,
    managed: Option<Managed>,
}

/// What it takes to change it.
#[derive(Debug)]
pub(crate) struct Managed {
    pub(crate) adjuster: Adjuster,
    pub(crate) lease: LeaseId,
    pub(crate) held: ResourceVector,
    pub(crate) priority: Priority,
    pub(crate) need: Need,
    pub(crate) stop: StopSignal,
}

/// What was held, and how it changed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeldRecord {
    /// The first changes.
    pub changes: Vec<v1::Adjusted>,
    /// Changes after them.
    pub further_changes: u32,
    /// Memory held over time, in bytes times seconds.
    pub memory_byte_seconds: f64,
    /// CPU held over time, in cores times seconds.
    pub core_seconds: f64,
}

#[derive(Debug)]
struct Ledger {
    held: ResourceVector,
    since: Instant,
    record: HeldRecord,
}

impl Ledger {
    /// Adds what was held since the last change.
    fn pass_time(&mut self) {
        let now = Instant::now();
        let seconds = now.duration_since(self.since).as_secs_f64();
        self.record.memory_byte_seconds += self.held.memory.get() as f64 * seconds;
        self.record.core_seconds += self.held.cpu.get() as f64 / 1000.0 * seconds;
        self.since = now;
    }
}

impl Allocation {
    /// One that never changes.
    pub fn fixed(vector: ResourceVector) -> Self {
        Self::new(vector, None)
    }

    /// That of a lease, which `adjuster` may change.
    pub(crate) fn managed(adjuster: Adjuster, lease: &Lease, assignment: &Assignment, stop: StopSignal) -> Self {
        let held = lease.held();
        let managed = Managed {
            adjuster,
            lease: lease.id(),
            held: held.clone(),
            priority: assignment.headers.priority,
            need: need(assignment),
            stop,
        };
        Self::new(held, Some(managed))
    }

    fn new(vector: ResourceVector, managed: Option<Managed>) -> Self {
        let ledger = Ledger { held: vector.clone(), since: Instant::now(), record: HeldRecord::default() };
        Self(Arc::new(Shared { told: watch::Sender::new(vector), ledger: Mutex::new(ledger), managed }))
    }

    /// What the run may use from the start, where that is not all that is held.
    pub(crate) fn start(&self, vector: &ResourceVector) {
        self.0.told.send_replace(vector.clone());
    }

    /// What the run may use, now and whenever it changes.
    pub fn watch(&self) -> watch::Receiver<ResourceVector> {
        self.0.told.subscribe()
    }

    pub(crate) fn management(&self) -> Option<&Managed> {
        self.0.managed.as_ref()
    }

    /// Notes a change; tells it if it is one of the vector.
    pub(crate) fn note(&self, change: &'static str, from: &ResourceVector, to: &ResourceVector, reason: Reason) {
        {
            let mut ledger = self.lock();
            ledger.pass_time();
            ledger.held = to.clone();
            if ledger.record.changes.len() < MOST_CHANGES {
                ledger.record.changes.push(v1::Adjusted {
                    at_unix_ms: now_unix_ms(),
                    change: change.to_owned(),
                    from: Some(from.into()),
                    to: Some(to.into()),
                    reason: reason.to_string(),
                });
            } else {
                ledger.record.further_changes = ledger.record.further_changes.saturating_add(1);
            }
        }
        if from != to {
            self.0.told.send_replace(to.clone());
        }
    }

    /// What was held until now.
    pub(crate) fn record(&self) -> HeldRecord {
        let mut ledger = self.lock();
        ledger.pass_time();
        ledger.record.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Allocation {
    /// Of nothing, for ever.
    fn default() -> Self {
        Self::fixed(ResourceVector::ZERO)
    }
}

/// What the forecast says of a run.
fn need(assignment: &Assignment) -> Need {
    let quantiles: Vec<_> = assignment.shard.forecast.iter().flat_map(|forecast| &forecast.need).collect();
    let median = quantiles.iter().find(|quantile| (quantile.probability - 0.5).abs() < 0.01);
    let spread = |of: fn(&v1::NeedQuantile) -> f64| quantiles.iter().any(|q| median.is_some_and(|m| of(q) > of(m)));
    let memory = median.filter(|_| spread(|quantile| quantile.memory_bytes));
    let duration = median.and_then(|m| Duration::try_from_secs_f64(m.duration_ms / 1000.0).ok());
    Need {
        typical_memory: memory.map(|median| Bytes::from_f64(median.memory_bytes)),
        duration: duration.filter(|d| !d.is_zero()).unwrap_or(assignment.headers.reservation.duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::assignment;
    use forecastle_resources::CpuMillis;

    #[test]
    fn what_is_typical_is_told_only_by_a_spread() {
        let mut assignment = assignment();
        let quantile = |probability, memory_bytes| v1::NeedQuantile {
            probability,
            memory_bytes,
            duration_ms: 4000.0,
            ..Default::default()
        };
        let mut of = |need: Vec<v1::NeedQuantile>| {
            assignment.shard.forecast = Some(v1::Forecast { need, ..Default::default() });
            super::need(&assignment)
        };
        assert_eq!(of(vec![]), Need { typical_memory: None, duration: Duration::from_secs(1) });
        let declared = of(vec![quantile(0.5, 9.0), quantile(0.95, 9.0)]);
        assert_eq!(declared, Need { typical_memory: None, duration: Duration::from_secs(4) });
        let learnt = of(vec![quantile(0.5, 7.0), quantile(0.95, 9.0)]);
        assert_eq!(learnt.typical_memory, Some(Bytes(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_adds_up_and_changes_beyond_the_first_are_counted() {
        let vector = |memory| ResourceVector::new(CpuMillis(500), Bytes(memory));
        let allocation = Allocation::fixed(vector(100));
        let watch = allocation.watch();
        tokio::time::advance(Duration::from_secs(2)).await;
        allocation.note("grow", &vector(100), &vector(300), Reason::MemoryNearLimit);
        assert_eq!(*watch.borrow(), vector(300));
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..MOST_CHANGES {
            allocation.note("throttle", &vector(300), &vector(300), Reason::MemoryShort);
        }
        let record = allocation.record();
        assert!((record.memory_byte_seconds - 500.0).abs() < 1e-6, "{record:?}");
        assert!((record.core_seconds - 1.5).abs() < 1e-6, "{record:?}");
        assert_eq!((record.changes.len(), record.further_changes), (MOST_CHANGES, 1));
        assert_eq!((&*record.changes[0].reason, &*record.changes[0].change), ("memory-near-limit", "grow"));
    }
}
