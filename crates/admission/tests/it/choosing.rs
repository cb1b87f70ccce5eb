//! The choice among offers, over random pools.

use std::time::Duration;

use forecastle_admission::{Acquisition, ClaimPolicy, Decision, Offer, Pool, Reason, choose};
use forecastle_resources::Bytes;
use proptest::prelude::*;

use crate::random::{AFTER, filled, histories, offers, settings};

fn many_offers() -> impl Strategy<Value = Vec<Offer>> {
    prop::collection::vec(offers(), 0..12)
}

fn fits(pool: &Pool, offer: &Offer) -> bool {
    matches!(pool.clone().try_acquire(&offer.claim, AFTER), Acquisition::Acquired(_))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_claimed_fits_what_is_handed_back_never_does_and_what_waits_has_its_reason(
        setting in settings(), history in histories(), offers in many_offers(),
    ) {
        let mut pool = filled(&setting, &history);
        let looked_at = ClaimPolicy::default().order(&offers, pool.capacity());
        let order = |place: usize| looked_at.iter().position(|other| *other == place).unwrap();
        let decision = choose(&offers, &pool, AFTER);
        prop_assert_eq!(&choose(&offers, &pool, AFTER), &decision, "the same again");
        match decision {
            Decision::Claim(place) => prop_assert!(fits(&pool, &offers[place])),
            Decision::HandBack(place, resource) => {
                let answer = pool.try_acquire(&offers[place].claim, AFTER);
                prop_assert_eq!(answer, Acquisition::NeverFits(resource));
            }
            Decision::Wait { reserved, waiting } => {
                prop_assert_eq!(waiting.len(), offers.len());
                prop_assert_eq!(reserved.map(|start| start.offer), looked_at.first().copied());
                for (place, wait) in waiting.iter().enumerate() {
                    prop_assert!(wait.not_before >= AFTER);
                    let ends = AFTER.after(offers[place].claim.predicted_end_after);
                    match &wait.reason {
                        Reason::BlockedOn(resource) => {
                            let answer = pool.clone().try_acquire(&offers[place].claim, AFTER);
                            prop_assert_eq!(answer, Acquisition::BlockedOn(resource.clone()));
                            continue;
                        }
                        Reason::WouldDelay { older } => {
                            prop_assert!(order(*older) < order(place));
                            let same = offers[*older].claim.priority == offers[place].claim.priority;
                            prop_assert!(ends > waiting[*older].not_before || same);
                        }
                        Reason::BackfillStopped { older } => {
                            prop_assert!(order(*older) < order(place));
                            prop_assert!(AFTER.since(offers[*older].offered) >= Duration::from_mins(1));
                        }
                        Reason::LendingClosed { owner, resource } => {
                            let owner = &offers[*owner].claim;
                            prop_assert!(owner.priority != offers[place].claim.priority);
                            prop_assert!(pool.is_guaranteed(owner.priority, &owner.vector));
                            prop_assert!(owner.vector.get(resource) > 0);
                        }
                    }
                    prop_assert!(fits(&pool, &offers[place]), "else it had been blocked");
                }
            }
        }
    }

    #[test]
    fn they_are_looked_at_by_priority_then_age_then_size(setting in settings(), offers in many_offers()) {
        let policy = ClaimPolicy::default();
        let capacity = setting.pool().capacity().clone();
        let order = policy.order(&offers, &capacity);
        let mut places = order.clone();
        places.sort_unstable();
        prop_assert_eq!(places, (0..offers.len()).collect::<Vec<_>>());
        for pair in order.windows(2) {
            let (first, second) = (&offers[pair[0]], &offers[pair[1]]);
            prop_assert!(first.claim.priority <= second.claim.priority);
            if first.claim.priority == second.claim.priority {
                prop_assert!(first.released < second.released.after(policy.one_age));
                let size = |offer: &Offer| offer.claim.vector.dominant_share(&capacity);
                let larger_first = first.released <= second.released || size(first) >= size(second);
                prop_assert!(larger_first, "a younger one goes first only if it is larger");
            }
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter(
        setting in settings(), history in histories(), mut offers in many_offers(),
    ) {
        let pool = filled(&setting, &history);
        // No two of one age.
        for (place, offer) in offers.iter_mut().enumerate() {
            offer.released = offer.released.after(Duration::from_millis(place as u64));
        }
        let reversed: Vec<Offer> = offers.iter().rev().cloned().collect();
        let last = offers.len().saturating_sub(1);
        match (choose(&offers, &pool, AFTER), choose(&reversed, &pool, AFTER)) {
            (Decision::Claim(one), Decision::Claim(other)) => prop_assert_eq!(one, last - other),
            (Decision::HandBack(one, _), Decision::HandBack(other, _)) => prop_assert_eq!(one, last - other),
            (Decision::Wait { waiting, .. }, Decision::Wait { waiting: other, .. }) => {
                let starts = |w: &[forecastle_admission::Waiting]| w.iter().map(|w| w.not_before).collect::<Vec<_>>();
                let mut other = starts(&other);
                other.reverse();
                prop_assert_eq!(starts(&waiting), other);
            }
            (one, other) => prop_assert!(false, "{:?} and {:?}", one, other),
        }
    }

    #[test]
    fn an_empty_pool_never_waits(setting in settings(), offers in prop::collection::vec(offers(), 1..12)) {
        let waits = matches!(choose(&offers, &setting.pool(), AFTER), Decision::Wait { .. });
        prop_assert!(!waits);
    }

    #[test]
    fn every_offer_is_claimed_or_handed_back_in_the_end(
        setting in settings(), history in histories(), mut offers in many_offers(),
    ) {
        let mut pool = filled(&setting, &history);
        let mut now = AFTER;
        while !offers.is_empty() {
            match choose(&offers, &pool, now) {
                Decision::Claim(place) => {
                    let claim = offers.remove(place).claim;
                    prop_assert!(matches!(pool.try_acquire(&claim, now), Acquisition::Acquired(_)));
                }
                Decision::HandBack(place, _) => {
                    offers.remove(place);
                }
                Decision::Wait { .. } => {
                    // What leases need to grow is needed no more when they have ended.
                    pool.keep_for_growth(Bytes::ZERO);
                    if pool.leases().len() == 0 {
                        continue;
                    }
                    let next = pool.leases().map(|lease| (lease.predicted_end, lease.id)).min();
                    let (end, id) = next.expect("somebody waits for somebody");
                    now = now.max(end);
                    pool.release(id).unwrap();
                }
            }
        }
    }
}
