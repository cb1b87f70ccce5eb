//! The worker's one governor over its leases.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forecastle_admission::{AdjustmentPolicy, Advice, Change, Governor, LeaseId, Subject, UsageSample};
use forecastle_resources::ResourceVector;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::enforcement::capacity;
use crate::leases::Leases;

/// How often it is looked how much memory the machine has left.
const MACHINE_EVERY: Duration = Duration::from_secs(1);

/// Adjusts the leases of a worker. Cheap to clone; clones share the governor.
#[derive(Debug, Clone)]
pub struct Adjuster(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    // Never held across an await, and taken before the pool's.
    governor: Mutex<Governor>,
    leases: Leases,
    clock: Clock,
    cpu_is_limited: bool,
}

impl Adjuster {
    /// An adjuster of these leases. `cpu_is_limited` says that CPU is a quota.
    pub fn new(policy: AdjustmentPolicy, leases: Leases, cpu_is_limited: bool) -> Self {
        let governor = Mutex::new(Governor::new(policy));
        Self(Arc::new(Shared { governor, leases, clock: Clock::start(), cpu_is_limited }))
    }

    /// Tells the governor how much memory the machine has, until told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(MACHINE_EVERY)).await.is_some() {
            match tokio::task::spawn_blocking(capacity::memory_now).await {
                Ok(Ok(available)) => self.lock().machine(available, self.0.clock.now()),
                Ok(Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "how much memory is left is not known");
                }
                Err(error) => tracing::error!(%error, "looking for memory failed"),
            }
        }
    }

    /// True if CPU is a quota.
    pub(crate) fn cpu_is_limited(&self) -> bool {
        self.0.cpu_is_limited
    }

    /// Time between samples of a run that is far from its limit.
    pub(crate) fn interval(&self) -> Duration {
        self.lock().policy().longest_interval
    }

    pub(crate) fn begin(&self, lease: LeaseId, subject: Subject) {
        self.lock().begin(lease, subject, self.0.clock.now());
    }

    pub(crate) fn end(&self, lease: LeaseId) {
        let mut governor = self.lock();
        governor.end(lease);
        self.0.leases.keep_for_growth(governor.needed_for_growth());
    }

    pub(crate) fn failed(&self, lease: LeaseId) {
        self.lock().failed(lease, self.0.clock.now());
    }

    /// Takes a sample and says what to do. A lease that is to grow has grown when this answers.
    pub(crate) fn observe(&self, lease: LeaseId, sample: &UsageSample) -> Advice {
        let shared = &*self.0;
        let mut governor = self.lock();
        let waiting = shared.leases.somebody_waits();
        let (mut advice, grown) = shared.leases.change(|pool| {
            let advice = governor.observe(lease, sample, pool, waiting, shared.clock.now());
            let grown = match &advice.change {
                Change::Grow(to) => pool.resize(lease, to).map(drop),
                _ => Ok(()),
            };
            (advice, grown)
        });
        if let Err(error) = grown {
            tracing::error!(%error, "a lease was to grow that cannot");
            governor.failed(lease, shared.clock.now());
            advice.change = Change::Keep;
        }
        shared.leases.keep_for_growth(governor.needed_for_growth());
        advice
    }

    /// Gives a lease another size, which is not larger.
    pub(crate) fn give_back(&self, lease: LeaseId, to: &ResourceVector) {
        // A lease that is gone has given everything back.
        let _ = self.0.leases.resize(lease, to);
    }

    fn lock(&self) -> MutexGuard<'_, Governor> {
        // What a panic elsewhere leaves is a governor of all runs but one.
        self.0.governor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
