//! The choice among offers.
//!
//! Offers are looked at by priority, then by age, and of about one age the largest first, since small ones find room
//! beside large ones and not the other way round; the first that may be claimed is. What may be claimed:
//!
//! 1. It fits in the pool.
//! 2. It borrows nothing that the oldest offer of another priority waits for within that priority's guarantee: *lending
//!    is closed* while the owner waits, also to more urgent priorities. Nor does a younger offer of the owner's own
//!    priority use up the guarantee. With the pool's own rule this makes what is guaranteed reachable within the
//!    lending horizon, by leases ending as predicted.
//! 3. It delays no older offer that waits (EASY backfill: Lifka, JSSPP 1995; Mu'alem and Feitelson, IEEE TPDS 12(6),
//!    2001): the oldest that does not fit has a start in the future, predicted from the ends of the leases; others pass
//!    if they are predicted to end before it, or fit beside it even then. Once that offer has been here for
//!    [`ClaimPolicy::backfill_until`], nothing passes it any more, since predictions may be wrong time and again.
//!    An offer within its own priority's guarantee need not mind those of other priorities; and one that only its own
//!    priority's maximum keeps waiting holds up its own priority alone.

use std::time::Duration;

use forecastle_resources::{Priority, Resource, ResourceVector};

use crate::backfill::Start;
use crate::lease::Claim;
use crate::pool::{Obstacle, Pool};
use crate::time::Time;

/// A shard that the broker offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What it would take.
    pub claim: Claim,
    /// When the shard was released to its queue: its age, which decides among offers of one priority.
    pub released: Time,
    /// Since when this worker has it in hand: what its patience counts from. Whoever hands an offer back and takes
    /// the queue up again may count on from where it was.
    pub offered: Time,
}

/// What to do about the offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Claim this one (its place in the list), then ask again.
    Claim(usize),
    /// Hand this one back: it would not fit in this pool if that were empty, for lack of this resource.
    HandBack(usize, Resource),
    /// Claim none until something is freed or another offer comes.
    Wait {
        /// The oldest offer that waits, and when it will start. `None` if there are no offers.
        reserved: Option<FutureStart>,
        /// Why each offer waits, in the order of the offers.
        waiting: Vec<Waiting>,
    },
}

/// A start in the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FutureStart {
    /// The offer's place in the list.
    pub offer: usize,
    /// When it is predicted to start.
    pub at: Time,
}

/// Why an offer waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Why.
    pub reason: Reason,
    /// The earliest that it is predicted to start; one that waits longer than its owner has patience is handed back.
    pub not_before: Time,
}

/// Why an offer waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// There is not enough of this.
    BlockedOn(Resource),
    /// It fits, but holds too long what an older offer will need.
    WouldDelay {
        /// The older offer's place in the list.
        older: usize,
    },
    /// It fits, but an older offer has waited so long that nothing passes it any more.
    BackfillStopped {
        /// The older offer's place in the list.
        older: usize,
    },
    /// It fits, but only by borrowing this from a priority that waits for what it is guaranteed.
    LendingClosed {
        /// The owner's place in the list.
        owner: usize,
        /// What would be borrowed.
        resource: Resource,
    },
}

/// How offers are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimPolicy {
    /// How long an offer may be passed by others.
    pub backfill_until: Duration,
    /// Offers released within the same span of this length are of about one age.
    pub one_age: Duration,
}

impl Default for ClaimPolicy {
    /// A minute, and the two seconds by which shards are released ahead of the fleet.
    fn default() -> Self {
        Self { backfill_until: Duration::from_mins(1), one_age: Duration::from_secs(2) }
    }
}

/// [`ClaimPolicy::choose`] with the default policy.
pub fn choose(offers: &[Offer], pool: &Pool, now: Time) -> Decision {
    ClaimPolicy::default().choose(offers, pool, now)
}

/// An offer that waits and that others must not delay.
struct Head<'a> {
    place: usize,
    offer: &'a Offer,
    start: Start,
    /// It holds up its own priority alone.
    own_priority_only: bool,
    /// It is within its priority's guarantee, and must stay so.
    is_owner: bool,
}

impl Head<'_> {
    fn holds_up(&self, claim: &Claim, pool: &Pool) -> bool {
        let same = self.offer.claim.priority == claim.priority;
        same || !(self.own_priority_only || pool.is_guaranteed(claim.priority, &claim.vector))
    }
}

impl ClaimPolicy {
    /// The places of these offers in the order in which they are looked at, on a worker of this capacity.
    pub fn order(&self, offers: &[Offer], capacity: &ResourceVector) -> Vec<usize> {
        let rank = |place: usize| {
            let Offer { claim, released, .. } = &offers[place];
            let age = released.0.as_nanos() / self.one_age.as_nanos().max(1);
            ((claim.priority, age), claim.vector.dominant_share(capacity), (*released, place))
        };
        let mut order: Vec<usize> = (0..offers.len()).collect();
        order.sort_by(|a, b| {
            let (a, b) = (rank(*a), rank(*b));
            a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2))
        });
        order
    }

    /// What to do about these offers. The order of the list matters only among offers of one priority, one age and one
    /// size.
    pub fn choose(&self, offers: &[Offer], pool: &Pool, now: Time) -> Decision {
        let order: Vec<(usize, &Offer)> =
            self.order(offers, pool.capacity()).into_iter().map(|place| (place, &offers[place])).collect();
        for (place, offer) in &order {
            if let Some(Obstacle::Never(resource)) = pool.obstacle(&offer.claim) {
                return Decision::HandBack(*place, resource);
            }
        }
        let owners = owners(&order, pool);
        let mut heads: Vec<Head<'_>> = Vec::new();
        let mut waiting: Vec<(usize, Waiting)> = Vec::new();
        for (place, offer) in order {
            let Some((reason, kind)) = self.reason_to_wait(offer, &owners, &heads, pool, now) else {
                return Decision::Claim(place);
            };
            // What fits starts when the one that it waits for has started; else when leases have ended.
            let Some(mut start) = Start::of(pool, &offer.claim, now) else {
                // Not reached: what never fits was handed back above.
                return Decision::HandBack(place, Resource::Cpu);
            };
            let ahead = match &reason {
                Reason::BlockedOn(_) => None,
                Reason::WouldDelay { older } | Reason::BackfillStopped { older } => {
                    heads.iter().find(|head| head.place == *older).map(|head| head.start.at)
                }
                Reason::LendingClosed { owner, .. } => {
                    offers.get(*owner).and_then(|o| Start::of(pool, &o.claim, now)).map(|start| start.at)
                }
            };
            start.at = start.at.max(ahead.unwrap_or(now));
            waiting.push((place, Waiting { reason, not_before: start.at }));
            let held_up = heads.iter().any(|head| head.holds_up(&offer.claim, pool));
            if let (Some(own_priority_only), false) = (kind, held_up) {
                let is_owner = owners.iter().any(|(owner, _)| *owner == place);
                heads.push(Head { place, offer, start, own_priority_only, is_owner });
            }
        }
        let reserved = waiting.first().map(|(offer, wait)| FutureStart { offer: *offer, at: wait.not_before });
        waiting.sort_by_key(|(place, _)| *place);
        Decision::Wait { reserved, waiting: waiting.into_iter().map(|(_, wait)| wait).collect() }
    }

    /// Why an offer waits, and whether it can become one that others must not delay: `Some(true)` for its own
    /// priority, `Some(false)` for all.
    fn reason_to_wait(
        self,
        offer: &Offer,
        owners: &[(usize, &Offer)],
        heads: &[Head<'_>],
        pool: &Pool,
        now: Time,
    ) -> Option<(Reason, Option<bool>)> {
        let claim = &offer.claim;
        if let Some(obstacle) = pool.obstacle(claim) {
            let own_priority_only = matches!(obstacle, Obstacle::Maximum(_));
            return Some((Reason::BlockedOn(obstacle.resource()), Some(own_priority_only)));
        }
        for (owner, owned) in owners.iter().filter(|(_, owned)| owned.claim.priority != claim.priority) {
            if let Some(resource) = pool.withheld(claim, &owned.claim) {
                return Some((Reason::LendingClosed { owner: *owner, resource }, Some(false)));
            }
        }
        for head in heads.iter().filter(|head| head.holds_up(claim, pool)) {
            let older = head.place;
            if now.since(head.offer.offered) >= self.backfill_until {
                return Some((Reason::BackfillStopped { older }, None));
            }
            let same_priority = head.offer.claim.priority == claim.priority;
            if head.is_owner && same_priority && !pool.is_guaranteed_besides(claim, &head.offer.claim.vector) {
                return Some((Reason::WouldDelay { older }, None));
            }
            let ends_before = now.after(claim.predicted_end_after) <= head.start.at;
            if !ends_before && !head.start.has_room_beside(&head.offer.claim, claim) {
                return Some((Reason::WouldDelay { older }, None));
            }
        }
        None
    }
}

/// The oldest offer of each priority, where it is within that priority's guarantee.
fn owners<'a>(order: &[(usize, &'a Offer)], pool: &Pool) -> Vec<(usize, &'a Offer)> {
    let oldest = |priority| order.iter().find(|(_, offer)| offer.claim.priority == priority).copied();
    Priority::ALL
        .into_iter()
        .filter_map(oldest)
        .filter(|(_, offer)| pool.is_guaranteed(offer.claim.priority, &offer.claim.vector))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Acquisition;
    use crate::shares::Shares;
    use forecastle_resources::{Bytes, CpuMillis};

    fn vector(cpu: u64, memory: u64) -> ResourceVector {
        ResourceVector::new(CpuMillis(cpu), Bytes(memory))
    }

    fn claim(priority: Priority, vector: ResourceVector, seconds: u64) -> Claim {
        Claim { priority, vector, predicted_end_after: Duration::from_secs(seconds) }
    }

    /// An offer released at this second, and here since then.
    fn offer(priority: Priority, vector: ResourceVector, seconds: u64, released: u64) -> Offer {
        let released = Time::from_secs(released);
        Offer { claim: claim(priority, vector, seconds), released, offered: released }
    }

    /// 1000 m and 100 B with nothing guaranteed, of which standard holds these until these seconds.
    fn held(leases: &[(ResourceVector, u64)]) -> Pool {
        let mut pool = Pool::new(vector(1000, 100), Shares::none(), Pool::LENDING_HORIZON).unwrap();
        for (vector, seconds) in leases {
            take(&mut pool, Priority::Standard, vector.clone(), *seconds);
        }
        pool
    }

    fn take(pool: &mut Pool, priority: Priority, vector: ResourceVector, seconds: u64) {
        let taken = pool.try_acquire(&claim(priority, vector, seconds), Time::START);
        assert!(matches!(taken, Acquisition::Acquired(_)), "{taken:?}");
    }

    fn reasons(decision: Decision) -> Vec<Reason> {
        match decision {
            Decision::Wait { waiting, .. } => waiting.into_iter().map(|wait| wait.reason).collect(),
            other => panic!("{other:?}"),
        }
    }

    const NOW: Time = Time::from_secs(10);

    #[test]
    fn priority_goes_before_age_and_age_before_place() {
        let small = vector(100, 1);
        let offers = [
            offer(Priority::Batch, small.clone(), 1, 0),
            offer(Priority::Standard, small.clone(), 1, 5),
            offer(Priority::Standard, small.clone(), 1, 3),
            offer(Priority::Urgent, small, 1, 9),
        ];
        let pool = held(&[]);
        assert_eq!(choose(&offers, &pool, NOW), Decision::Claim(3));
        assert_eq!(choose(&offers[..3], &pool, NOW), Decision::Claim(2));
        assert_eq!(choose(&offers[..1], &pool, NOW), Decision::Claim(0));
        assert_eq!(choose(&[], &pool, NOW), Decision::Wait { reserved: None, waiting: vec![] });
    }

    #[test]
    fn what_never_fits_is_handed_back_even_if_others_could_be_claimed() {
        let offers = [offer(Priority::Urgent, vector(1, 1), 1, 0), offer(Priority::Batch, vector(1, 101), 1, 0)];
        assert_eq!(choose(&offers, &held(&[]), NOW), Decision::HandBack(1, Resource::Memory));
    }

    #[test]
    fn a_younger_offer_passes_if_it_ends_before_the_older_one_can_start() {
        // 600 m are held until second 20, so that 800 m can start then.
        let pool = held(&[(vector(600, 10), 20)]);
        let large = offer(Priority::Standard, vector(800, 10), 60, 0);
        let short = offer(Priority::Batch, vector(300, 10), 10, 5);
        assert_eq!(choose(&[large.clone(), short], &pool, NOW), Decision::Claim(1));
        let long = offer(Priority::Batch, vector(300, 10), 11, 5);
        let decision = choose(&[large.clone(), long], &pool, NOW);
        let expected = Decision::Wait {
            reserved: Some(FutureStart { offer: 0, at: Time::from_secs(20) }),
            waiting: vec![
                Waiting { reason: Reason::BlockedOn(Resource::Cpu), not_before: Time::from_secs(20) },
                Waiting { reason: Reason::WouldDelay { older: 0 }, not_before: Time::from_secs(20) },
            ],
        };
        assert_eq!(decision, expected);
        let beside = offer(Priority::Batch, vector(200, 10), 3600, 5);
        assert_eq!(choose(&[large, beside], &pool, NOW), Decision::Claim(1), "200 m are to spare even then");
    }

    #[test]
    fn nothing_passes_an_offer_that_has_been_here_for_a_minute() {
        let pool = held(&[(vector(600, 10), 1000)]);
        let large = offer(Priority::Standard, vector(800, 10), 60, 0);
        let short = offer(Priority::Batch, vector(300, 10), 1, 5);
        assert_eq!(choose(&[large.clone(), short.clone()], &pool, Time::from_secs(59)), Decision::Claim(1));
        let decision = choose(&[large.clone(), short.clone()], &pool, Time::from_secs(60));
        assert_eq!(reasons(decision)[1], Reason::BackfillStopped { older: 0 });
        let patient = ClaimPolicy { backfill_until: Duration::from_mins(2), ..ClaimPolicy::default() };
        assert_eq!(patient.choose(&[large.clone(), short], &pool, Time::from_secs(60)), Decision::Claim(1));
        let urgent = offer(Priority::Urgent, vector(300, 10), 1, 59);
        assert_eq!(
            choose(&[large, urgent], &pool, Time::from_secs(60)),
            Decision::Claim(1),
            "it does not pass, it leads"
        );
    }

    #[test]
    fn a_lease_that_overruns_is_expected_to_run_over_by_as_much_again() {
        let pool = held(&[(vector(600, 10), 20)]);
        let large = offer(Priority::Standard, vector(800, 10), 60, 0);
        match choose(&[large], &pool, Time::from_secs(26)) {
            Decision::Wait { reserved, .. } => {
                assert_eq!(reserved, Some(FutureStart { offer: 0, at: Time::from_secs(32) }));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_priority_at_its_maximum_holds_up_itself_alone() {
        let shares = Shares::none().with_maximum(Priority::Urgent, vector(300, 0));
        let mut pool = Pool::new(vector(1000, 100), shares, Pool::LENDING_HORIZON).unwrap();
        take(&mut pool, Priority::Urgent, vector(200, 1), 1000);
        let blocked = offer(Priority::Urgent, vector(200, 1), 10, 0);
        let same = offer(Priority::Urgent, vector(100, 1), 2000, 1);
        let other = offer(Priority::Batch, vector(800, 1), 5000, 2);
        let late = Time::from_secs(500);
        assert_eq!(choose(&[blocked.clone(), same.clone(), other], &pool, late), Decision::Claim(2));
        assert_eq!(reasons(choose(&[blocked, same], &pool, late))[1], Reason::BackfillStopped { older: 0 });
    }

    #[test]
    fn while_an_owner_waits_nothing_it_waits_for_is_lent_not_even_to_more_urgent_work() {
        let shares = Shares::none().with_guaranteed(Priority::Batch, vector(500, 20));
        let mut pool = Pool::new(vector(1000, 100), shares, Pool::LENDING_HORIZON).unwrap();
        take(&mut pool, Priority::Standard, vector(500, 10), 3600);
        take(&mut pool, Priority::Standard, vector(100, 10), 20);
        let urgent = offer(Priority::Urgent, vector(300, 10), 5, 9);
        let owner = offer(Priority::Batch, vector(500, 10), 3600, 0);
        assert_eq!(choose(std::slice::from_ref(&urgent), &pool, NOW), Decision::Claim(0));
        let decision = choose(&[urgent.clone(), owner.clone()], &pool, NOW);
        let closed = Reason::LendingClosed { owner: 1, resource: Resource::Cpu };
        assert_eq!(reasons(decision), [closed, Reason::BlockedOn(Resource::Cpu)]);
        let memory_only = offer(Priority::Urgent, vector(0, 10), 5, 9);
        assert_eq!(choose(&[memory_only, owner], &pool, NOW), Decision::Claim(0));
    }

    #[test]
    fn an_owner_that_fits_is_claimed_before_more_urgent_work_borrows_its_part() {
        let shares = Shares::none().with_guaranteed(Priority::Batch, vector(500, 20));
        let pool = Pool::new(vector(1000, 100), shares, Pool::LENDING_HORIZON).unwrap();
        let urgent = offer(Priority::Urgent, vector(600, 10), 5, 9);
        let owner = offer(Priority::Batch, vector(500, 10), 3600, 0);
        assert_eq!(choose(&[urgent, owner.clone()], &pool, NOW), Decision::Claim(1));
        let modest = offer(Priority::Urgent, vector(500, 10), 5, 9);
        assert_eq!(choose(&[modest, owner], &pool, NOW), Decision::Claim(0), "there is room for both");
    }

    #[test]
    fn nothing_is_lent_beside_an_owner_that_fits_since_a_third_may_take_its_own_part_first() {
        let shares = Shares::none()
            .with_guaranteed(Priority::Standard, vector(300, 20))
            .with_guaranteed(Priority::Batch, vector(300, 20));
        let mut pool = Pool::new(vector(1000, 100), shares, Pool::LENDING_HORIZON).unwrap();
        take(&mut pool, Priority::Urgent, vector(400, 10), 3600);
        let offers = [
            offer(Priority::Urgent, vector(300, 10), 5, 0),
            offer(Priority::Standard, vector(300, 10), 3600, 0),
            offer(Priority::Batch, vector(300, 10), 3600, 0),
        ];
        // The urgent one would leave 300 m for batch, which standard, guaranteed as much, would then take.
        assert_eq!(choose(&offers, &pool, NOW), Decision::Claim(1));
        take(&mut pool, Priority::Standard, vector(300, 10), 3600);
        assert_eq!(choose(&[offers[0].clone(), offers[2].clone()], &pool, NOW), Decision::Claim(1));
    }
}
