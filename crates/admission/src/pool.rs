//! The pool: a capacity, and the leases that hold parts of it.
//!
//! # Shares
//!
//! The capacity is the sum of what is guaranteed to each priority and a *common* rest. Leases that were predicted to
//! end within the lending horizon may hold anything that is free. All others (*lasting* ones) must find room in their
//! own priority's guarantee and the common rest alone. By component, with `lasting(p)` what lasting leases of `p` hold:
//!
//! > Σₚ max(lasting(p) − guaranteed(p), 0) ≤ capacity − Σₚ guaranteed(p)
//!
//! So once the other leases have ended, at most capacity − guaranteed(p) is held by others than `p`, for every `p`.

use std::collections::BTreeMap;
use std::time::Duration;

use forecastle_resources::{Bytes, Priority, Resource, ResourceVector};

use crate::lease::{Claim, Lease, LeaseId};
use crate::shares::{Shares, SharesError, index};
use crate::time::Time;

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an acquired lease must be released"]
pub enum Acquisition {
    /// All of it is held.
    Acquired(LeaseId),
    /// There is not enough of this free now; nothing is held.
    BlockedOn(Resource),
    /// There would not be enough of this if the pool were empty; nothing is held.
    NeverFits(Resource),
}

/// No such lease: it was released already, or is another pool's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not held: it was released already, or is of another pool")]
pub struct UnknownLease(pub LeaseId);

/// Why a lease keeps its size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResizeError {
    /// No such lease.
    #[error(transparent)]
    Unknown(#[from] UnknownLease),
    /// There is not enough of this free for its priority.
    #[error("not enough {0} is free for the lease to grow")]
    BlockedOn(Resource),
}

/// Why a claim does not fit now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// It would not fit in an empty pool.
    Never(Resource),
    /// Its priority holds the most it may.
    Maximum(Resource),
    /// Others hold what it needs, or what is free is guaranteed to others.
    Held(Resource),
}

impl Obstacle {
    pub(crate) fn resource(self) -> Resource {
        match self {
            Self::Never(resource) | Self::Maximum(resource) | Self::Held(resource) => resource,
        }
    }
}

/// What one priority holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Held {
    all: ResourceVector,
    /// The part of it in leases that may not borrow.
    lasting: ResourceVector,
}

/// A capacity and its leases. The owner supplies the time and wakes its waiters when something is freed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    capacity: ResourceVector,
    shares: Shares,
    /// The capacity that is guaranteed to nobody.
    common: ResourceVector,
    lending_horizon: Duration,
    leases: BTreeMap<LeaseId, Lease>,
    next_id: u64,
    held: [Held; Priority::ALL.len()],
    /// Free memory that claims do not get, since leases that are held need it to grow.
    kept_for_growth: Bytes,
}

impl Pool {
    /// How long a guaranteed part may be lent, unless configured otherwise.
    pub const LENDING_HORIZON: Duration = Duration::from_secs(30);

    /// An empty pool. Fails if the shares do not fit the capacity.
    pub fn new(capacity: ResourceVector, shares: Shares, lending_horizon: Duration) -> Result<Self, SharesError> {
        shares.check(&capacity)?;
        let common = capacity.saturating_sub(&shares.all_guaranteed());
        Ok(Self {
            capacity,
            shares,
            common,
            lending_horizon,
            leases: BTreeMap::new(),
            next_id: 1,
            held: Default::default(),
            kept_for_growth: Bytes::ZERO,
        })
    }

    /// All there is.
    pub fn capacity(&self) -> &ResourceVector {
        &self.capacity
    }

    /// Who is guaranteed what.
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Gives priorities other shares. Fails, and changes nothing, if they do not fit the capacity. Leases keep what they
    /// hold: what they hold of what is guaranteed to others now comes back when they end.
    pub fn set_shares(&mut self, shares: Shares) -> Result<(), SharesError> {
        shares.check(&self.capacity)?;
        self.common = self.capacity.saturating_sub(&shares.all_guaranteed());
        self.shares = shares;
        Ok(())
    }

    /// How long a guaranteed part may be lent.
    pub fn lending_horizon(&self) -> Duration {
        self.lending_horizon
    }

    /// What nobody holds; not all of it may be available to everybody, see [`Pool::available`].
    pub fn free(&self) -> ResourceVector {
        self.capacity.saturating_sub(&self.held())
    }

    /// What all leases hold together.
    pub fn held(&self) -> ResourceVector {
        self.held.iter().fold(ResourceVector::ZERO, |sum, held| sum.saturating_add(&held.all))
    }

    /// What the leases of one priority hold together.
    pub fn held_by(&self, priority: Priority) -> &ResourceVector {
        &self.held[index(priority)].all
    }

    /// The leases, the oldest first.
    pub fn leases(&self) -> impl ExactSizeIterator<Item = &Lease> {
        self.leases.values()
    }

    /// One lease, if it is held.
    pub fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// The most that a claim of this priority could get now, predicted to end after this long.
    pub fn available(&self, priority: Priority, predicted_end_after: Duration) -> ResourceVector {
        self.room(priority, self.may_borrow(predicted_end_after))
    }

    /// Takes all that is claimed, or nothing.
    pub fn try_acquire(&mut self, claim: &Claim, now: Time) -> Acquisition {
        match self.obstacle(claim) {
            Some(Obstacle::Never(resource)) => return Acquisition::NeverFits(resource),
            Some(Obstacle::Maximum(resource) | Obstacle::Held(resource)) => return Acquisition::BlockedOn(resource),
            None => {}
        }
        let id = LeaseId(self.next_id);
        self.next_id += 1;
        let lease = Lease {
            id,
            priority: claim.priority,
            vector: claim.vector.clone(),
            since: now,
            predicted_end: now.after(claim.predicted_end_after),
            may_borrow: self.may_borrow(claim.predicted_end_after),
        };
        self.count(&lease, ResourceVector::saturating_add);
        self.leases.insert(id, lease);
        Acquisition::Acquired(id)
    }

    /// Changes what a lease holds, and answers with what that freed (zero where it grew). Shrinking always succeeds;
    /// growing takes what is available to its priority, all or nothing.
    pub fn resize(&mut self, id: LeaseId, vector: &ResourceVector) -> Result<ResourceVector, ResizeError> {
        let lease = self.leases.get(&id).ok_or(UnknownLease(id))?.clone();
        let more = vector.saturating_sub(&lease.vector);
        if let Some(resource) = more.exceeds(&self.growth_room(lease.priority, lease.may_borrow)) {
            return Err(ResizeError::BlockedOn(resource));
        }
        self.count(&lease, ResourceVector::saturating_sub);
        let resized = Lease { vector: vector.clone(), ..lease.clone() };
        self.count(&resized, ResourceVector::saturating_add);
        self.leases.insert(id, resized);
        Ok(lease.vector.saturating_sub(vector))
    }

    /// Ends a lease, and answers with what that freed. Exactly once: a second time is an error and frees nothing.
    pub fn release(&mut self, id: LeaseId) -> Result<ResourceVector, UnknownLease> {
        let lease = self.leases.remove(&id).ok_or(UnknownLease(id))?;
        self.count(&lease, ResourceVector::saturating_sub);
        Ok(lease.vector)
    }

    /// What a lease may grow by now. What is [kept for growth](Self::keep_for_growth) is there for it.
    pub fn room_to_grow(&self, lease: &Lease) -> ResourceVector {
        self.growth_room(lease.priority, lease.may_borrow)
    }

    /// Keeps free memory from claims, in favour of leases that need it to grow. Replaces what was kept before. Nobody is
    /// kept from what is guaranteed to it.
    pub fn keep_for_growth(&mut self, memory: Bytes) {
        self.kept_for_growth = memory;
    }

    /// What is kept from claims.
    pub fn kept_for_growth(&self) -> Bytes {
        self.kept_for_growth
    }

    /// Whether leases predicted to last this long may hold what is guaranteed to others.
    fn may_borrow(&self, predicted_end_after: Duration) -> bool {
        predicted_end_after <= self.lending_horizon
    }

    /// Adds a lease to the counts, or takes it away.
    fn count(&mut self, lease: &Lease, change: fn(&ResourceVector, &ResourceVector) -> ResourceVector) {
        let held = &mut self.held[index(lease.priority)];
        held.all = change(&held.all, &lease.vector);
        if !lease.may_borrow {
            held.lasting = change(&held.lasting, &lease.vector);
        }
    }

    /// What a claim of this priority may take now.
    fn room(&self, priority: Priority, may_borrow: bool) -> ResourceVector {
        let room = self.growth_room(priority, may_borrow);
        let not_kept = self.free().memory.saturating_sub(self.kept_for_growth);
        let unused = self.shares.guaranteed(priority).memory.saturating_sub(self.held_by(priority).memory);
        ResourceVector { memory: room.memory.min(not_kept.max(unused)), ..room }
    }

    /// What a growing lease of this priority may take now.
    fn growth_room(&self, priority: Priority, may_borrow: bool) -> ResourceVector {
        let mut room = self.free();
        if !may_borrow {
            room = room.min(&self.lasting_room(priority));
        }
        self.below_maximum(priority, &room)
    }

    /// `room`, but no more than keeps the priority at or below the most it may hold.
    fn below_maximum(&self, priority: Priority, room: &ResourceVector) -> ResourceVector {
        let total = self.held_by(priority).saturating_add(room);
        let over = crate::shares::entries(self.shares.maximum(priority))
            .into_iter()
            .fold(ResourceVector::ZERO, |over, (resource, most)| {
                with(over, &resource, total.get(&resource).saturating_sub(most))
            });
        room.saturating_sub(&over)
    }

    /// What lasting leases of this priority may take besides what they hold, whether free now or lent.
    pub(crate) fn lasting_room(&self, priority: Priority) -> ResourceVector {
        let beyond = Priority::ALL.into_iter().fold(ResourceVector::ZERO, |sum, other| {
            let lasting = &self.held[index(other)].lasting;
            sum.saturating_add(&lasting.saturating_sub(self.shares.guaranteed(other)))
        });
        let own = self.shares.guaranteed(priority).saturating_sub(&self.held[index(priority)].lasting);
        own.saturating_add(&self.common.saturating_sub(&beyond))
    }

    /// What keeps a claim from being acquired now.
    pub(crate) fn obstacle(&self, claim: &Claim) -> Option<Obstacle> {
        let Claim { priority, vector, predicted_end_after } = claim;
        let may_borrow = self.may_borrow(*predicted_end_after);
        let own = self.common.saturating_add(self.shares.guaranteed(*priority));
        let most = if may_borrow { &self.capacity } else { &own };
        if let Some(resource) = vector.exceeds(most).or_else(|| self.shares.over_maximum(*priority, vector)) {
            return Some(Obstacle::Never(resource));
        }
        let total = self.held_by(*priority).saturating_add(vector);
        if let Some(resource) = self.over_maximum(*priority, &total, vector) {
            return Some(Obstacle::Maximum(resource));
        }
        vector.exceeds(&self.room(*priority, may_borrow)).map(Obstacle::Held)
    }

    /// The first resource that is claimed and of which the priority would hold more than it may.
    fn over_maximum(&self, priority: Priority, total: &ResourceVector, claimed: &ResourceVector) -> Option<Resource> {
        let maximum = self.shares.maximum(priority);
        crate::shares::entries(claimed)
            .into_iter()
            .map(|(resource, _)| resource)
            .find(|resource| maximum.get(resource) > 0 && total.get(resource) > maximum.get(resource))
    }
}

/// The vector with another amount of one resource.
fn with(mut vector: ResourceVector, resource: &Resource, amount: u64) -> ResourceVector {
    match resource {
        Resource::Cpu => vector.cpu.0 = amount,
        Resource::Memory => vector.memory.0 = amount,
        Resource::Io => vector.io.0 = amount,
        Resource::Scratch => vector.scratch.0 = amount,
        Resource::Named(name) => return vector.with_named(name.clone(), amount),
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_resources::CpuMillis;

    const SHORT: Duration = Duration::from_secs(10);
    const LONG: Duration = Duration::from_hours(1);

    fn vector(cpu: u64, memory: u64) -> ResourceVector {
        ResourceVector::new(CpuMillis(cpu), Bytes(memory))
    }

    fn claim(priority: Priority, vector: ResourceVector, predicted_end_after: Duration) -> Claim {
        Claim { priority, vector, predicted_end_after }
    }

    /// 1000 m and 100 B, of which urgent is guaranteed 400 m and 40 B.
    fn pool() -> Pool {
        let shares = Shares::none().with_guaranteed(Priority::Urgent, vector(400, 40));
        Pool::new(vector(1000, 100).with_named("gpu", 1), shares, Pool::LENDING_HORIZON).unwrap()
    }

    fn acquire(pool: &mut Pool, claim: &Claim) -> LeaseId {
        match pool.try_acquire(claim, Time::START) {
            Acquisition::Acquired(id) => id,
            other => panic!("{claim:?}: {other:?}"),
        }
    }

    #[test]
    fn a_claim_gets_everything_or_nothing_and_the_scarce_resource_is_named() {
        let mut pool = pool();
        acquire(&mut pool, &claim(Priority::Standard, vector(100, 60).with_named("gpu", 1), LONG));
        let before = pool.clone();
        let more = claim(Priority::Urgent, vector(100, 60), SHORT);
        assert_eq!(pool.try_acquire(&more, Time::START), Acquisition::BlockedOn(Resource::Memory));
        let gpu = claim(Priority::Urgent, vector(100, 10).with_named("gpu", 1), SHORT);
        assert_eq!(pool.try_acquire(&gpu, Time::START), Acquisition::BlockedOn(Resource::Named("gpu".into())));
        let two = claim(Priority::Urgent, ResourceVector::ZERO.with_named("gpu", 2), SHORT);
        assert_eq!(pool.try_acquire(&two, Time::START), Acquisition::NeverFits(Resource::Named("gpu".into())));
        assert_eq!(pool, before);
    }

    #[test]
    fn guaranteed_parts_are_lent_to_short_claims_only() {
        let mut pool = pool();
        let long = claim(Priority::Batch, vector(601, 1), LONG);
        assert_eq!(pool.try_acquire(&long, Time::START), Acquisition::NeverFits(Resource::Cpu), "not even when empty");
        acquire(&mut pool, &claim(Priority::Batch, vector(500, 1), LONG));
        let long = claim(Priority::Standard, vector(101, 1), LONG);
        assert_eq!(pool.try_acquire(&long, Time::START), Acquisition::BlockedOn(Resource::Cpu));
        acquire(&mut pool, &claim(Priority::Standard, vector(101, 1), SHORT));
        assert_eq!(pool.available(Priority::Urgent, LONG), vector(399, 98).with_named("gpu", 1));
        assert_eq!(pool.available(Priority::Batch, LONG), vector(100, 59).with_named("gpu", 1));
    }

    #[test]
    fn a_priority_holds_no_more_than_its_maximum() {
        let shares = Shares::none().with_maximum(Priority::Batch, vector(300, 0));
        let mut pool = Pool::new(vector(1000, 100), shares, Pool::LENDING_HORIZON).unwrap();
        let lease = acquire(&mut pool, &claim(Priority::Batch, vector(200, 90), LONG));
        let more = claim(Priority::Batch, vector(101, 1), SHORT);
        assert_eq!(pool.try_acquire(&more, Time::START), Acquisition::BlockedOn(Resource::Cpu));
        let never = claim(Priority::Batch, vector(301, 1), SHORT);
        assert_eq!(pool.try_acquire(&never, Time::START), Acquisition::NeverFits(Resource::Cpu));
        assert_eq!(pool.available(Priority::Batch, SHORT), vector(100, 10));
        assert_eq!(pool.resize(lease, &vector(301, 90)), Err(ResizeError::BlockedOn(Resource::Cpu)));
        assert_eq!(pool.resize(lease, &vector(300, 90)), Ok(ResourceVector::ZERO));
    }

    #[test]
    fn shares_that_change_bind_claims_at_once_and_leave_leases_alone() {
        let mut pool = pool();
        let lease = acquire(&mut pool, &claim(Priority::Batch, vector(600, 50), LONG));
        let too_much = Shares::none().with_guaranteed(Priority::Urgent, vector(1001, 1));
        let before = pool.clone();
        assert_eq!(pool.set_shares(too_much), Err(SharesError::Overcommitted(Resource::Cpu)));
        assert_eq!(pool, before);
        let more = Shares::none().with_guaranteed(Priority::Urgent, vector(800, 80));
        pool.set_shares(more).unwrap();
        assert_eq!(pool.held(), vector(600, 50), "leases keep what they hold");
        let long = claim(Priority::Standard, vector(1, 1), LONG);
        assert_eq!(pool.try_acquire(&long, Time::START), Acquisition::BlockedOn(Resource::Cpu));
        pool.release(lease).unwrap();
        let all = claim(Priority::Urgent, vector(800, 80), LONG);
        acquire(&mut pool, &all);
        assert_eq!(pool.available(Priority::Standard, LONG), vector(200, 20).with_named("gpu", 1));
        pool.set_shares(Shares::none().with_maximum(Priority::Standard, vector(100, 0))).unwrap();
        assert_eq!(pool.available(Priority::Standard, LONG), vector(100, 20).with_named("gpu", 1));
    }

    #[test]
    fn a_lease_grows_only_into_what_is_available_to_it_and_always_shrinks() {
        let mut pool = pool();
        let lease = acquire(&mut pool, &claim(Priority::Batch, vector(500, 50), LONG));
        assert_eq!(pool.resize(lease, &vector(601, 50)), Err(ResizeError::BlockedOn(Resource::Cpu)));
        assert_eq!(pool.resize(lease, &vector(600, 20)), Ok(vector(0, 30)), "grows in one, shrinks in the other");
        assert_eq!(pool.held(), vector(600, 20));
        assert_eq!(pool.resize(lease, &ResourceVector::ZERO), Ok(vector(600, 20)));
        assert_eq!(pool.free(), *pool.capacity());
    }

    #[test]
    fn a_lease_ends_exactly_once() {
        let mut pool = pool();
        let lease = acquire(&mut pool, &claim(Priority::Batch, vector(500, 50), LONG));
        assert_eq!(pool.release(lease), Ok(vector(500, 50)));
        assert_eq!(pool.release(lease), Err(UnknownLease(lease)));
        assert_eq!(pool.resize(lease, &vector(1, 1)), Err(ResizeError::Unknown(UnknownLease(lease))));
        let next = acquire(&mut pool, &claim(Priority::Batch, vector(500, 50), LONG));
        assert_ne!(next, lease);
        assert_eq!(pool.release(lease), Err(UnknownLease(lease)), "an old id does not end a new lease");
        assert_eq!(pool.held(), vector(500, 50));
    }
}
