//! What is guaranteed to a priority is reachable within the lending horizon.

use std::time::Duration;

use forecastle_admission::{Acquisition, Claim, ClaimPolicy, Decision, Offer, Pool, Time, choose};
use forecastle_resources::{Priority, ResourceVector};
use proptest::prelude::*;

use crate::random::{AFTER, HORIZON, filled, histories, offers, priorities, settings};

const FOR_EVER: Duration = Duration::from_hours(1000);

fn unused_guarantee(pool: &Pool, priority: Priority) -> ResourceVector {
    pool.shares().guaranteed(priority).saturating_sub(pool.held_by(priority))
}

/// Ends what should have ended by now.
fn end_as_predicted(pool: &mut Pool, now: Time) {
    let ended: Vec<_> = pool.leases().filter(|lease| lease.is_overdue(now)).map(|lease| lease.id).collect();
    for id in ended {
        pool.release(id).expect("it was held a moment ago");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn once_borrowers_have_ended_all_that_is_guaranteed_fits(
        setting in settings(), history in histories(), owner in priorities(),
    ) {
        let mut pool = filled(&setting, &history);
        let vector = unused_guarantee(&pool, owner);
        let borrowers: Vec<_> =
            pool.leases().filter(|l| l.priority != owner && l.may_borrow).map(|l| (l.id, l.predicted_end)).collect();
        for (id, predicted_end) in borrowers {
            prop_assert!(predicted_end <= AFTER.after(HORIZON), "lent for longer than the horizon");
            pool.release(id).unwrap();
        }
        let claim = Claim { priority: owner, vector, predicted_end_after: FOR_EVER };
        prop_assert!(matches!(pool.try_acquire(&claim, AFTER), Acquisition::Acquired(_)));
    }

    #[test]
    fn after_the_horizon_stopping_the_named_borrowers_is_enough_and_none_is_named_in_vain(
        setting in settings(), history in histories(), owner in priorities(),
    ) {
        let pool = filled(&setting, &history);
        let vector = unused_guarantee(&pool, owner);
        let claim = Claim { priority: owner, vector: vector.clone(), predicted_end_after: FOR_EVER };
        let now = AFTER.after(HORIZON);
        let named = pool.overdue_borrowers(owner, &vector, now);
        for id in &named {
            let lease = pool.lease(*id).unwrap();
            prop_assert!(lease.priority != owner && lease.may_borrow && lease.is_overdue(now));
        }
        let fits_without = |stopped: &[_]| {
            let mut pool = pool.clone();
            for id in stopped {
                pool.release(*id).unwrap();
            }
            matches!(pool.try_acquire(&claim, now), Acquisition::Acquired(_))
        };
        prop_assert!(fits_without(&named));
        for spared in 0..named.len() {
            let mut others = named.clone();
            others.remove(spared);
            prop_assert!(!fits_without(&others), "one more than needed");
        }
    }

    #[test]
    fn an_owner_starts_within_the_horizon_whatever_else_is_offered(
        setting in settings(), history in histories(), owner in priorities(),
        rivals in prop::collection::vec(offers(), 40),
    ) {
        // Leases end as predicted, so none overruns at the beginning either.
        let mut pool = filled(&setting, &history);
        end_as_predicted(&mut pool, AFTER);
        let vector = unused_guarantee(&pool, owner);
        if vector.is_zero() {
            // It holds all that is guaranteed to it already: there is nothing to wait for.
            return Ok(());
        }
        let claim = Claim { priority: owner, vector, predicted_end_after: FOR_EVER };
        let mut waiting = vec![Offer { claim, released: AFTER, offered: AFTER }];
        let mut rivals = rivals.into_iter().enumerate();

        for second in 0..=HORIZON.as_secs() {
            let now = AFTER.after(Duration::from_secs(second));
            end_as_predicted(&mut pool, now);
            // Two more rivals each second, of all priorities; those of the owner's own are of another age than its offer.
            for (index, rival) in rivals.by_ref().take(2) {
                let released = AFTER.after(ClaimPolicy::default().one_age + Duration::from_millis(index as u64));
                waiting.push(Offer { released, offered: now, ..rival });
            }
            loop {
                match choose(&waiting, &pool, now) {
                    Decision::Claim(0) => return Ok(()),
                    Decision::Claim(place) => {
                        let claim = waiting.remove(place).claim;
                        prop_assert!(matches!(pool.try_acquire(&claim, now), Acquisition::Acquired(_)));
                    }
                    Decision::HandBack(place, _) => {
                        prop_assert!(place != 0, "what is guaranteed always fits an empty pool");
                        waiting.remove(place);
                    }
                    Decision::Wait { .. } => break,
                }
            }
        }
        prop_assert!(false, "the owner still waits after the horizon");
    }
}
