//! Leases: held parts of the pool, given back exactly once.
//!
//! The pool itself is pure and knows leases by number. Here a lease is a guard: whoever holds it, wherever it goes, the
//! pool gets its part back when it is dropped, and whoever chooses among offers is woken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forecastle_admission::{Acquisition, Claim, LeaseId, Pool, ResizeError, Shares, SharesError, Time};
use forecastle_resources::{Bytes, Resource, ResourceVector};
use tokio::sync::Notify;

/// A pool and those who wait for a part of it. Cheap to clone; clones share the pool.
#[derive(Debug, Clone)]
pub struct Leases(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    // Never held across an await.
    pool: Mutex<Pool>,
    freed: Notify,
    waiting: AtomicBool,
}

/// A held part of the pool.
#[derive(Debug)]
#[must_use = "dropping it gives the part back"]
pub struct Lease {
    shared: Arc<Shared>,
    id: LeaseId,
}

impl Leases {
    /// Leases of `pool`.
    pub fn new(pool: Pool) -> Self {
        Self(Arc::new(Shared { pool: Mutex::new(pool), freed: Notify::new(), waiting: AtomicBool::new(false) }))
    }

    /// Takes all that is claimed, or says what there is not enough of.
    pub fn acquire(&self, claim: &Claim, now: Time) -> Result<Lease, Resource> {
        match self.0.lock().try_acquire(claim, now) {
            Acquisition::Acquired(id) => Ok(Lease { shared: Arc::clone(&self.0), id }),
            Acquisition::BlockedOn(resource) | Acquisition::NeverFits(resource) => Err(resource),
        }
    }

    /// Asks for a decision that may acquire leases; each is to have a [guard](Self::guard).
    pub(crate) fn with<T>(&self, decide: impl FnOnce(&mut Pool) -> T) -> T {
        decide(&mut self.0.lock())
    }

    /// The guard of a lease that was acquired [so](Self::with). There may be only one.
    pub(crate) fn guard(&self, id: LeaseId) -> Lease {
        Lease { shared: Arc::clone(&self.0), id }
    }

    /// The pool as it is now.
    pub fn pool(&self) -> Pool {
        self.0.lock().clone()
    }

    /// Gives a lease another size, and wakes the chooser. Growing takes what is free, all or nothing.
    pub fn resize(&self, lease: LeaseId, vector: &ResourceVector) -> Result<(), ResizeError> {
        self.change(|pool| pool.resize(lease, vector).map(drop))
    }

    /// Changes the pool, and wakes the chooser if anything is free now that was not, or the other way round.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Pool) -> T) -> T {
        let mut pool = self.0.lock();
        let before = pool.free();
        let answer = change(&mut pool);
        // Growth is news too: to load reports.
        let changed = pool.free() != before;
        drop(pool);
        if changed {
            self.0.freed.notify_one();
        }
        answer
    }

    /// Keeps free memory from claims, in favour of leases that grow. Wakes the chooser if that is less than before.
    pub fn keep_for_growth(&self, memory: Bytes) {
        let mut pool = self.0.lock();
        let before = pool.kept_for_growth();
        pool.keep_for_growth(memory);
        drop(pool);
        if memory < before {
            self.0.freed.notify_one();
        }
    }

    /// Gives priorities other shares of the pool, and wakes the chooser. Fails, and changes nothing, if they do not fit.
    pub fn change_shares(&self, change: impl FnOnce(Shares) -> Shares) -> Result<(), SharesError> {
        let mut pool = self.0.lock();
        let shares = change(pool.shares().clone());
        pool.set_shares(shares)?;
        drop(pool);
        self.0.freed.notify_one();
        Ok(())
    }

    /// Says whether offers wait for something to be freed.
    pub fn say_waiting(&self, waiting: bool) {
        self.0.waiting.store(waiting, Ordering::Relaxed);
    }

    /// True if offers wait for something to be freed.
    pub fn somebody_waits(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Waits until something was freed since the last wait. One waiter at a time.
    pub async fn freed(&self) {
        self.0.freed.notified().await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pool> {
        // The pool changes all or nothing, so a panic elsewhere leaves it sound.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Its number in the pool.
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// What it holds now.
    pub fn held(&self) -> ResourceVector {
        self.shared.lock().lease(self.id).map_or(ResourceVector::ZERO, |lease| lease.vector.clone())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Only this guard knows the number, and it is dropped once.
        if let Err(error) = self.shared.lock().release(self.id) {
            tracing::error!(%error, "a lease was given back twice");
        }
        self.shared.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use forecastle_resources::{Bytes, CpuMillis, Priority};

    fn claim(cpu: u64) -> Claim {
        let vector = ResourceVector::new(CpuMillis(cpu), Bytes::mib(1));
        Claim { priority: Priority::Standard, vector, predicted_end_after: Duration::from_secs(1) }
    }

    #[tokio::test]
    async fn dropping_a_lease_gives_it_back_once_and_wakes_the_chooser() {
        let capacity = ResourceVector::new(CpuMillis(1000), Bytes::gib(1));
        let leases = Leases::new(Pool::new(capacity.clone(), Shares::none(), Pool::LENDING_HORIZON).unwrap());
        let lease = leases.acquire(&claim(700), Time::START).unwrap();
        assert_eq!(lease.held().cpu, CpuMillis(700));
        assert_eq!(leases.acquire(&claim(400), Time::START).unwrap_err(), Resource::Cpu);
        let waiter = tokio::spawn({
            let leases = leases.clone();
            async move { leases.freed().await }
        });
        tokio::task::yield_now().await;
        // Wherever it is dropped: here with a task that panics.
        let task = tokio::spawn(async move {
            let _lease = lease;
            panic!("on purpose");
        });
        assert!(task.await.is_err());
        waiter.await.unwrap();
        assert_eq!(leases.pool().free(), capacity);
    }
}
