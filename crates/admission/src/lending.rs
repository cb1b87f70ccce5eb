//! Guaranteed parts that are lent, and how they come back.

use std::cmp::Reverse;

use forecastle_resources::{Priority, Resource, ResourceVector};

use crate::lease::{Claim, Lease, LeaseId};
use crate::pool::Pool;
use crate::shares::{entries, index};
use crate::time::Time;

impl Pool {
    /// True if `vector` and what the priority holds already are together within what is guaranteed to it.
    pub fn is_guaranteed(&self, priority: Priority, vector: &ResourceVector) -> bool {
        entries(vector).iter().all(|(resource, amount)| self.is_guaranteed_of(priority, resource, *amount))
    }

    /// True if `wanted` would still be within what is guaranteed to the priority of `taken`, after that was taken. Only
    /// resources count of which both have some.
    pub(crate) fn is_guaranteed_besides(&self, taken: &Claim, wanted: &ResourceVector) -> bool {
        entries(wanted).iter().all(|(resource, amount)| {
            let taken_of = taken.vector.get(resource);
            taken_of == 0 || self.is_guaranteed_of(taken.priority, resource, taken_of.saturating_add(*amount))
        })
    }

    fn is_guaranteed_of(&self, priority: Priority, resource: &Resource, amount: u64) -> bool {
        let total = self.held_by(priority).get(resource).saturating_add(amount);
        total <= self.shares().guaranteed(priority).get(resource)
    }

    /// The first resource that `borrower` may not take, because `owner` (of another priority, within its guarantee)
    /// wants it too, and the borrower would hold what is guaranteed to others. Not even for a short while: until the
    /// owner has been claimed, nothing that it wants is lent, so that all that was lent before comes back. That holds
    /// even if the owner fits now: what is left beside the borrower may be guaranteed to a third, which takes it first.
    pub(crate) fn withheld(&self, borrower: &Claim, owner: &Claim) -> Option<Resource> {
        entries(&borrower.vector)
            .into_iter()
            .find(|(resource, amount)| {
                owner.vector.get(resource) > 0
                    && !self.is_guaranteed_of(borrower.priority, resource, *amount)
                    && self.would_be_lent(borrower.priority, resource, *amount)
            })
            .map(|(resource, _)| resource)
    }

    /// True if some of what is guaranteed and not used were held by others, once `priority` took `amount` more.
    fn would_be_lent(&self, priority: Priority, resource: &Resource, amount: u64) -> bool {
        let beyond = Priority::ALL.into_iter().fold(0_u64, |sum, other| {
            let more = if other == priority { amount } else { 0 };
            let held = self.held_by(other).get(resource).saturating_add(more);
            sum.saturating_add(held.saturating_sub(self.shares().guaranteed(other).get(resource)))
        });
        let guaranteed = self.shares().all_guaranteed().get(resource);
        beyond > self.capacity().get(resource).saturating_sub(guaranteed)
    }

    /// The borrowers to stop so that `vector` fits, which `priority` waits for within its guarantee: leases of other
    /// priorities, beyond their own guarantee, that were predicted to have ended by now. The longest overdue come
    /// first, and none is named that need not be.
    ///
    /// Empty if it fits, if it asks for more than is guaranteed of a resource that is lacking, or if stopping them
    /// would not be enough yet: then the others end within the lending horizon, or are overdue themselves.
    pub fn overdue_borrowers(&self, priority: Priority, vector: &ResourceVector, now: Time) -> Vec<LeaseId> {
        let free = self.free();
        let lacking = vector.saturating_sub(&free);
        let lasting_room = self.lasting_room(priority);
        let total = self.held_by(priority).saturating_add(vector);
        let entitled = entries(&lacking)
            .iter()
            .all(|(resource, _)| self.is_guaranteed_of(priority, resource, vector.get(resource)));
        if !entitled || !vector.fits_in(&lasting_room) || self.shares().over_maximum(priority, &total).is_some() {
            return Vec::new();
        }

        let mut candidates: Vec<&Lease> = self
            .leases()
            .filter(|lease| lease.priority != priority && lease.may_borrow && lease.is_overdue(now))
            .collect();
        candidates.sort_by_key(|lease| (lease.predicted_end, lease.id));
        let mut left: Vec<ResourceVector> = Priority::ALL.iter().map(|other| self.held_by(*other).clone()).collect();
        let mut stopped: Vec<&Lease> = Vec::new();
        let mut freed = ResourceVector::ZERO;
        for (resource, lack) in entries(&lacking) {
            for lease in &candidates {
                if freed.get(&resource) >= lack {
                    break;
                }
                let remaining = &mut left[index(lease.priority)];
                let borrows = remaining.get(&resource) > self.shares().guaranteed(lease.priority).get(&resource);
                if borrows && lease.vector.get(&resource) > 0 && !stopped.iter().any(|s| s.id == lease.id) {
                    *remaining = remaining.saturating_sub(&lease.vector);
                    freed = freed.saturating_add(&lease.vector);
                    stopped.push(lease);
                }
            }
            if freed.get(&resource) < lack {
                return Vec::new();
            }
        }
        // Some may have become unnecessary by those after them; the least overdue are spared first.
        stopped.sort_by_key(|lease| Reverse((lease.predicted_end, lease.id)));
        let mut needed = Vec::new();
        for lease in stopped {
            let without = freed.saturating_sub(&lease.vector);
            if lacking.fits_in(&without) {
                freed = without;
            } else {
                needed.push(lease.id);
            }
        }
        needed.reverse();
        needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Acquisition;
    use crate::shares::Shares;
    use forecastle_resources::{Bytes, CpuMillis};
    use std::time::Duration;

    fn vector(cpu: u64, memory: u64) -> ResourceVector {
        ResourceVector::new(CpuMillis(cpu), Bytes(memory))
    }

    fn take(pool: &mut Pool, priority: Priority, vector: ResourceVector, seconds: u64) -> LeaseId {
        let claim = Claim { priority, vector, predicted_end_after: Duration::from_secs(seconds) };
        match pool.try_acquire(&claim, Time::START) {
            Acquisition::Acquired(id) => id,
            other => panic!("{claim:?}: {other:?}"),
        }
    }

    fn pool() -> Pool {
        let shares = Shares::none()
            .with_guaranteed(Priority::Urgent, vector(500, 50))
            .with_guaranteed(Priority::Standard, vector(200, 20));
        Pool::new(vector(1000, 100), shares, Pool::LENDING_HORIZON).unwrap()
    }

    #[test]
    fn borrowers_are_named_only_once_they_overrun_and_only_as_many_as_needed() {
        let mut pool = pool();
        let late = take(&mut pool, Priority::Batch, vector(300, 30), 10);
        let later = take(&mut pool, Priority::Batch, vector(400, 30), 20);
        take(&mut pool, Priority::Batch, vector(300, 30), 3600);
        let at = |seconds| pool.overdue_borrowers(Priority::Urgent, &vector(400, 10), Time::from_secs(seconds));
        assert_eq!(at(5), []);
        assert_eq!(at(15), [], "300 would not be enough; the other one should end soon");
        assert_eq!(at(20), [later], "the longer overdue one alone would not be enough, this one is");
        let all = pool.overdue_borrowers(Priority::Urgent, &vector(500, 10), Time::from_secs(20));
        assert_eq!(all, [late, later]);
    }

    #[test]
    fn nobody_is_stopped_for_what_is_free_or_not_guaranteed() {
        let mut pool = pool();
        take(&mut pool, Priority::Batch, vector(900, 10), 1);
        let now = Time::from_secs(100);
        assert_eq!(pool.overdue_borrowers(Priority::Urgent, &vector(100, 10), now), []);
        assert_eq!(pool.overdue_borrowers(Priority::Urgent, &vector(501, 10), now), []);
        assert_eq!(pool.overdue_borrowers(Priority::Batch, &vector(200, 10), now), []);
    }

    #[test]
    fn a_priority_within_its_own_guarantee_is_not_stopped() {
        let mut pool = pool();
        take(&mut pool, Priority::Standard, vector(200, 20), 1);
        take(&mut pool, Priority::Batch, vector(300, 10), 10);
        let borrower = take(&mut pool, Priority::Batch, vector(500, 10), 20);
        let named = pool.overdue_borrowers(Priority::Urgent, &vector(500, 10), Time::from_secs(60));
        assert_eq!(named, [borrower], "standard is overdue longer, but owes nothing");
    }
}
