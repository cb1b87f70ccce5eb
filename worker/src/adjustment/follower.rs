//! From the samples of one run to its lease and its limits.

use std::sync::Arc;
use std::time::Duration;

use forecastle_admission::adjustment::Reason;
use forecastle_admission::{Advice, Change, Subject, UsageSample};
use forecastle_resources::{Bytes, CpuMillis, ResourceVector};
use metrics::counter;

use crate::adjustment::allocation::{Allocation, Managed};
use crate::adjustment::allocation_file::AllocationFile;
use crate::enforcement::{Cage, EnforcementError, Limits};
use crate::metric_definitions::{ADJUSTMENT_FAILURES, ADJUSTMENTS};
use crate::stop::StopReason;

/// Within what a run may be adjusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// The least that its unit ever reserves.
    pub minimum: ResourceVector,
    /// The most that its unit ever reserves; entries that are zero are not bounded.
    pub maximum: ResourceVector,
    /// True if its memory is limited.
    pub memory_is_limited: bool,
}

/// Follows one run.
#[derive(Debug)]
pub struct Follower {
    allocation: Allocation,
    /// None in this process, where nothing is limited.
    cage: Option<Arc<dyn Cage>>,
    file: Option<AllocationFile>,
    bounds: Bounds,
    begun: bool,
    throttled: Option<CpuMillis>,
    /// What the lease holds.
    held: ResourceVector,
}

impl Follower {
    /// A follower of the run that has this allocation; `None` if that never changes.
    pub fn new(
        allocation: &Allocation,
        bounds: Bounds,
        cage: Option<Arc<dyn Cage>>,
        file: Option<AllocationFile>,
    ) -> Option<Self> {
        let held = allocation.management()?.held.clone();
        Some(Self { allocation: allocation.clone(), cage, file, bounds, begun: false, throttled: None, held })
    }

    /// Time between samples of a run that is far from its limit.
    pub(crate) fn interval(&self) -> Duration {
        self.allocation.management().map_or(Duration::MAX, |managed| managed.adjuster.interval())
    }

    /// Takes a sample, does what is advised, and answers when the next one is due.
    pub(crate) async fn heed(&mut self, sample: UsageSample) -> Duration {
        let allocation = self.allocation.clone();
        let Some(managed) = allocation.management() else { return Duration::MAX };
        if !std::mem::replace(&mut self.begun, true) {
            managed.adjuster.begin(managed.lease, self.subject(managed));
        }
        let Advice { change, reason, next } = managed.adjuster.observe(managed.lease, &sample);
        match change {
            Change::Keep => {}
            Change::Grow(to) => self.grow(managed, to, reason).await,
            Change::Shrink(to) => self.shrink(managed, to, reason).await,
            Change::Throttle(cpu) => {
                if self.throttle(managed, Some(cpu)).await {
                    self.note("throttle", self.held.clone(), reason);
                }
            }
            Change::Unthrottle => {
                if self.throttle(managed, None).await {
                    self.note("unthrottle", self.held.clone(), reason);
                }
            }
            Change::Stop => {
                managed.stop.stop(StopReason::MemoryShort);
                self.note("stop", self.held.clone(), reason);
            }
        }
        next
    }

    fn subject(&self, managed: &Managed) -> Subject {
        Subject {
            priority: managed.priority,
            reserved: managed.held.clone(),
            minimum: self.bounds.minimum.clone(),
            maximum: self.bounds.maximum.clone(),
            memory_is_limited: self.bounds.memory_is_limited && self.cage.is_some(),
            cpu_is_limited: managed.adjuster.cpu_is_limited() && self.cage.is_some(),
            need: managed.need,
        }
    }

    /// The lease has grown already.
    async fn grow(&mut self, managed: &Managed, to: ResourceVector, reason: Reason) {
        match self.limit(&to).await {
            Ok(()) => self.changed("grow", to, reason).await,
            Err(error) => {
                Self::fail(managed, &error, "grow");
                // Some of the limits may have grown. Only if they are back the lease may be.
                if self.limit(&self.held).await.is_ok() {
                    managed.adjuster.give_back(managed.lease, &self.held);
                } else {
                    self.held = to;
                }
            }
        }
    }

    async fn shrink(&mut self, managed: &Managed, to: ResourceVector, reason: Reason) {
        match self.limit(&to).await {
            Ok(()) => {
                managed.adjuster.give_back(managed.lease, &to);
                self.changed("shrink", to, reason).await;
            }
            Err(error) => {
                Self::fail(managed, &error, "shrink");
                // The lease is as it was, so it covers the limits whichever of them have shrunk.
                if let Err(error) = self.limit(&self.held).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "limits of a run stay below its lease");
                }
            }
        }
    }

    async fn throttle(&mut self, managed: &Managed, cpu: Option<CpuMillis>) -> bool {
        let (cage, limits) = (self.cage.clone(), self.limits(&self.held));
        let done = blocking(move || {
            let Some(cage) = cage else { return Ok(()) };
            cage.throttle(cpu)?;
            // Without the throttle, CPU is limited as it was before.
            if cpu.is_none() { cage.resize(&limits) } else { Ok(()) }
        });
        match done.await {
            Ok(()) => {
                self.throttled = cpu;
                true
            }
            Err(error) => {
                Self::fail(managed, &error, "throttle");
                false
            }
        }
    }

    fn fail(managed: &Managed, error: &EnforcementError, what: &'static str) {
        counter!(ADJUSTMENT_FAILURES, "change" => what).increment(1);
        tracing::warn!(lease = %managed.lease, error = error as &dyn std::error::Error, what, "a run was not adjusted");
        managed.adjuster.failed(managed.lease);
    }

    async fn changed(&mut self, change: &'static str, to: ResourceVector, reason: Reason) {
        self.note(change, to.clone(), reason);
        let Some(file) = self.file.clone() else { return };
        match tokio::task::spawn_blocking(move || file.write(&to)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a run was not told of its new allocation"),
            Err(error) => tracing::error!(%error, "telling a run of its new allocation failed"),
        }
    }

    fn note(&mut self, change: &'static str, to: ResourceVector, reason: Reason) {
        counter!(ADJUSTMENTS, "change" => change, "reason" => reason.as_str()).increment(1);
        tracing::debug!(change, from = %self.held, %to, %reason, "a run was adjusted");
        self.allocation.note(change, &self.held, &to, reason);
        self.held = to;
    }

    fn limits(&self, vector: &ResourceVector) -> Limits {
        let limits = Limits::of(vector);
        // The little that such a lease holds is not meant as a limit.
        Limits { memory: limits.memory.filter(|_| self.bounds.memory_is_limited), ..limits }
    }

    async fn limit(&self, vector: &ResourceVector) -> Result<(), EnforcementError> {
        let (cage, limits, throttled) = (self.cage.clone(), self.limits(vector), self.throttled);
        blocking(move || {
            let Some(cage) = cage else { return Ok(()) };
            cage.resize(&limits)?;
            // A quota that was set with the limits has lifted it.
            if throttled.is_some() { cage.throttle(throttled) } else { Ok(()) }
        })
        .await
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if self.begun
            && let Some(managed) = self.allocation.management()
        {
            managed.adjuster.end(managed.lease);
        }
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<(), EnforcementError> + Send + 'static,
) -> Result<(), EnforcementError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(EnforcementError::control("change", "the limits of a run", std::io::Error::other(error)))
    })
}

impl Bounds {
    /// Those of a unit; `limited` says that its memory is limited.
    pub fn of(unit: &forecastle_catalogue::Unit, reserved: Bytes, limited: bool) -> Self {
        let most = &unit.maximum;
        let maximum = ResourceVector {
            cpu: most.cpu.unwrap_or_default(),
            memory: most.memory.unwrap_or_default(),
            io: most.io.unwrap_or_default(),
            scratch: most.scratch.unwrap_or_default(),
            ..ResourceVector::ZERO
        };
        let memory_is_limited = limited && reserved > Bytes::ZERO;
        Self { minimum: unit.minimum.clone(), maximum, memory_is_limited }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::path::PathBuf;
    use std::sync::Mutex;

    use forecastle_admission::{AdjustmentPolicy, Pool, Shares, Time};
    use tokio::time::advance;

    use crate::adjustment::Adjuster;
    use crate::enforcement::Sample;
    use crate::leases::{Lease, Leases};
    use crate::sample::assignment;
    use crate::stop::StopSignal;

    /// A cage that refuses changes as told, in their order, and otherwise notes them.
    #[derive(Debug)]
    struct Stubborn {
        refusals: Mutex<VecDeque<bool>>,
        limit: Mutex<Bytes>,
    }

    impl Cage for Stubborn {
        fn joining(&self) -> &[PathBuf] {
            &[]
        }

        fn sample(&self) -> Result<Option<Sample>, EnforcementError> {
            Ok(None)
        }

        fn resize(&self, limits: &Limits) -> Result<(), EnforcementError> {
            // As version 1 does it: memory first, so that a refusal leaves a part of the change.
            *self.limit.lock().unwrap() = limits.memory.unwrap();
            match self.refusals.lock().unwrap().pop_front() {
                Some(true) => Err(EnforcementError::control("write", "cpu", std::io::Error::other("on purpose"))),
                _ => Ok(()),
            }
        }

        fn throttle(&self, _: Option<CpuMillis>) -> Result<(), EnforcementError> {
            Ok(())
        }

        fn kill_all(&self) -> Result<usize, EnforcementError> {
            Ok(0)
        }

        fn remove(&self) -> Result<(), EnforcementError> {
            Ok(())
        }
    }

    struct Stage {
        lease: Lease,
        cage: Arc<Stubborn>,
        follower: Follower,
    }

    /// A run of 64 MiB on a worker of 1 GiB.
    fn stage(refusals: &[bool]) -> Stage {
        let capacity = ResourceVector::new(CpuMillis::cores(4), Bytes::gib(1));
        let leases = Leases::new(Pool::new(capacity, Shares::none(), Pool::LENDING_HORIZON).unwrap());
        let mut assignment = assignment();
        assignment.headers.reservation.vector.memory = Bytes::mib(64);
        let lease = leases.acquire(&assignment.claim(), Time::START).unwrap();
        let adjuster = Adjuster::new(AdjustmentPolicy::default(), leases, false);
        let allocation = Allocation::managed(adjuster, &lease, &assignment, StopSignal::new());
        let refusals = Mutex::new(refusals.iter().copied().collect());
        let cage = Arc::new(Stubborn { refusals, limit: Mutex::new(Bytes::mib(64)) });
        let bounds = Bounds { minimum: ResourceVector::ZERO, maximum: ResourceVector::ZERO, memory_is_limited: true };
        let follower = Follower::new(&allocation, bounds, Some(Arc::clone(&cage) as Arc<dyn Cage>), None).unwrap();
        Stage { lease, cage, follower }
    }

    impl Stage {
        async fn use_memory(&mut self, mebibytes: u64, times: u32) {
            for _ in 0..times {
                let sample = UsageSample { memory: Some(Bytes::mib(mebibytes)), ..UsageSample::default() };
                self.follower.heed(sample).await;
                assert!(self.held() >= self.limit(), "a lease covers its limit");
                advance(Duration::from_millis(100)).await;
            }
        }

        fn held(&self) -> Bytes {
            self.lease.held().memory
        }

        fn limit(&self) -> Bytes {
            *self.cage.limit.lock().unwrap()
        }

        fn changes(&self) -> Vec<String> {
            self.follower.allocation.record().changes.into_iter().map(|change| change.change).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lease_and_limit_grow_and_shrink_together() {
        let mut stage = stage(&[]);
        stage.use_memory(20, 100).await;
        let shrunk = stage.held();
        assert!(shrunk < Bytes::mib(64) && shrunk == stage.limit(), "{shrunk}");
        stage.use_memory(shrunk.get() >> 20, 1).await;
        assert!(stage.held() > shrunk && stage.held() == stage.limit());
        assert_eq!(stage.changes(), ["shrink", "grow"]);
        assert_eq!(*stage.follower.allocation.watch().borrow(), stage.lease.held());
    }

    #[tokio::test(start_paused = true)]
    async fn a_growth_that_the_kernel_refuses_is_taken_back() {
        let mut stage = stage(&[true]);
        stage.use_memory(20, 1).await;
        stage.use_memory(62, 1).await;
        assert_eq!((stage.held(), stage.limit()), (Bytes::mib(64), Bytes::mib(64)));
        assert_eq!(stage.changes(), [] as [&str; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_growth_that_can_neither_be_made_nor_taken_back_leaves_the_larger_lease() {
        let mut stage = stage(&[true, true]);
        stage.use_memory(20, 1).await;
        stage.use_memory(62, 1).await;
        assert!(stage.held() > Bytes::mib(64));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shrink_that_the_kernel_refuses_leaves_the_lease() {
        let mut stage = stage(&[true]);
        // Nothing is tried again before a settling time has passed.
        stage.use_memory(20, 80).await;
        assert_eq!((stage.held(), stage.limit()), (Bytes::mib(64), Bytes::mib(64)));
        stage.use_memory(20, 60).await;
        assert!(stage.held() < Bytes::mib(64) && stage.held() == stage.limit());
        assert_eq!(stage.changes(), ["shrink"]);
    }
}
