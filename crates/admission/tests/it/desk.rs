//! The desk of one worker, over random offers, ends and losses.

use std::collections::BTreeMap;
use std::time::Duration;

use forecastle_admission::{Arrival, Claim, Desk, DeskOptions, HandBack, LeaseId, Pool, Step, Time};
use forecastle_resources::{Bytes, CpuMillis, Priority, ResourceVector};
use proptest::prelude::*;

use crate::random::{claims, settings};

fn vector(cpu: u64) -> ResourceVector {
    ResourceVector::new(CpuMillis(cpu), Bytes::mib(1))
}

fn claim(cpu: u64, seconds: u64) -> Claim {
    Claim { priority: Priority::Standard, vector: vector(cpu), predicted_end_after: Duration::from_secs(seconds) }
}

fn arrival(queue: usize, key: u32, claim: Claim) -> Arrival<u32, ()> {
    Arrival { queue, key, claim, released: Time::START, payload: () }
}

fn pool() -> Pool {
    let capacity = ResourceVector::new(CpuMillis(1000), Bytes::gib(1));
    Pool::new(capacity, forecastle_admission::Shares::none(), Pool::LENDING_HORIZON).unwrap()
}

fn at(millis: u64) -> Time {
    Time(Duration::from_millis(millis))
}

/// Claims all of the pool for so long.
fn occupy(pool: &mut Pool, seconds: u64) -> LeaseId {
    match pool.try_acquire(&claim(1000, seconds), Time::START) {
        forecastle_admission::Acquisition::Acquired(lease) => lease,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_starts_within_the_hold_is_kept_for_it_and_what_does_not_goes_back_at_once() {
    let mut soon = pool();
    occupy(&mut soon, 1);
    let mut desk = Desk::new([1], DeskOptions::default());
    desk.take(arrival(0, 1, claim(500, 5)), Time::START);
    let Step::Wait { somebody_waits: true, wake: Some(_), .. } = desk.next(&mut soon, Time::START) else {
        panic!("it is kept")
    };
    let Step::HandBack { queue: 0, offers, reason: HandBack::Held(_) } = desk.next(&mut soon, at(2000)) else {
        panic!("it was held for long enough")
    };
    assert_eq!(offers.len(), 1);

    let mut late = pool();
    occupy(&mut late, 60);
    desk = Desk::new([1], DeskOptions::default());
    desk.take(arrival(0, 1, claim(500, 5)), Time::START);
    assert!(matches!(desk.next(&mut late, Time::START), Step::HandBack { reason: HandBack::Held(_), .. }));
    let Step::Wait { somebody_waits, .. } = desk.next(&mut late, Time::START) else { panic!("nothing is in hand") };
    assert!(somebody_waits, "it stands among the offers all the same");
}

#[test]
fn a_parked_queue_is_opened_when_what_it_offered_could_be_claimed() {
    let mut pool = pool();
    let lease = occupy(&mut pool, 60);
    let mut desk = Desk::new([1], DeskOptions::default());
    desk.take(arrival(0, 1, claim(500, 5)), Time::START);
    assert!(matches!(desk.next(&mut pool, Time::START), Step::HandBack { .. }));
    assert!(matches!(desk.next(&mut pool, at(500)), Step::Wait { .. }));
    pool.release(lease).unwrap();
    let Step::Open { queue: 0, window: 1 } = desk.next(&mut pool, at(600)) else {
        panic!("all that it offered fits, so one look is enough")
    };
    // Room is kept for what is expected: what comes from elsewhere must fit beside it.
    let Step::Wait { .. } = desk.next(&mut pool, at(610)) else { panic!("it is on its way") };
    desk.take(arrival(0, 1, claim(500, 5)), at(620));
    let Step::Claim(claimed, _) = desk.next(&mut pool, at(620)) else { panic!("it fits") };
    assert_eq!(claimed.key, 1);
}

#[test]
fn a_queue_is_browsed_by_how_much_of_it_fits_and_what_it_shows_is_judged_together() {
    let mut pool = pool();
    let lease = occupy(&mut pool, 3600);
    let mut desk = Desk::new([1], DeskOptions::default());
    desk.take(arrival(0, 1, claim(900, 5)), Time::START);
    assert!(matches!(desk.next(&mut pool, Time::START), Step::HandBack { .. }));
    // Nothing of it fits, so there is one look after the longest pause.
    assert!(matches!(desk.next(&mut pool, at(29_999)), Step::Wait { .. }));
    let Step::Open { window: 1, .. } = desk.next(&mut pool, at(30_000)) else { panic!("its pause is over") };
    desk.take(arrival(0, 2, claim(100, 5)), at(30_001));
    assert!(matches!(desk.next(&mut pool, at(30_001)), Step::HandBack { .. }));

    // Now half of what it offered would fit: seven offers show one that does with 99 %.
    pool.resize(lease, &vector(800)).unwrap();
    let Step::Open { window: 7, .. } = desk.next(&mut pool, at(30_010)) else { panic!("the second could be claimed") };
    desk.take(arrival(0, 3, claim(900, 5)), at(30_012));
    assert!(matches!(desk.next(&mut pool, at(30_012)), Step::Wait { .. }), "more may come");
    desk.take(arrival(0, 2, claim(100, 5)), at(30_013));
    let Step::Claim(claimed, _) = desk.next(&mut pool, at(30_013)) else { panic!("it fits") };
    assert_eq!(claimed.key, 2);
    assert!(matches!(desk.next(&mut pool, at(30_014)), Step::Wait { .. }));
    let Step::HandBack { offers, .. } = desk.next(&mut pool, at(30_032)) else { panic!("the moment is over") };
    assert_eq!(offers.iter().map(|offer| offer.key).collect::<Vec<_>>(), [3]);
}

/// Something that happens to a worker.
#[derive(Debug, Clone)]
enum Happens {
    /// A queue offers this, if it is open and has room.
    Offered(usize, Claim),
    /// Time passes.
    Passes(u64),
    /// The oldest lease ends.
    Ends,
    /// A queue's channel is lost.
    Lost(usize),
}

const QUEUES: usize = 4;

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        5 => (0..QUEUES, claims()).prop_map(|(queue, claim)| Happens::Offered(queue, claim)),
        3 => (1u64..3000).prop_map(Happens::Passes),
        2 => Just(Happens::Ends),
        1 => (0..QUEUES).prop_map(Happens::Lost),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_offer_leaves_once_and_none_is_held_for_longer_than_the_hold(
        setting in settings(), history in prop::collection::vec(happens(), 0..120), deep in 1u16..6,
    ) {
        let mut pool = setting.pool();
        let options = DeskOptions::default();
        let mut desk = Desk::new([1, 1, 1, deep], options);
        let mut windows: BTreeMap<usize, u16> = desk.windows().collect();
        prop_assert_eq!(windows.len(), QUEUES);
        // Since when each offer is in hand, by its key.
        let mut in_hand: BTreeMap<u32, (usize, Time)> = BTreeMap::new();
        let (mut now, mut last_key) = (Time::START, 0);
        for happens in history {
            match happens {
                Happens::Offered(queue, claim) => {
                    let unsettled = in_hand.values().filter(|(of, _)| *of == queue).count();
                    if windows.get(&queue).is_some_and(|window| unsettled < usize::from(*window)) {
                        last_key += 1;
                        desk.take(arrival(queue, last_key, claim), now);
                        in_hand.insert(last_key, (queue, now));
                    }
                }
                Happens::Passes(millis) => now = now.after(Duration::from_millis(millis)),
                Happens::Ends => {
                    let oldest = pool.leases().next().map(|lease| lease.id);
                    oldest.map(|lease| pool.release(lease).unwrap());
                }
                Happens::Lost(queue) => {
                    for offer in desk.void(|offer| offer.queue == queue) {
                        prop_assert_eq!(in_hand.remove(&offer.key).map(|(of, _)| of), Some(queue));
                    }
                }
            }
            loop {
                match desk.next(&mut pool, now) {
                    Step::Claim(offer, lease) => {
                        prop_assert!(in_hand.remove(&offer.key).is_some(), "once");
                        prop_assert_eq!(&pool.lease(lease).unwrap().vector, &offer.claim.vector);
                    }
                    Step::HandBack { queue, offers, .. } => {
                        prop_assert!(windows.remove(&queue).is_some(), "a queue is closed once");
                        for offer in offers {
                            prop_assert_eq!(in_hand.remove(&offer.key).map(|(of, _)| of), Some(queue));
                        }
                        prop_assert!(in_hand.values().all(|(of, _)| *of != queue), "all of it");
                    }
                    Step::Open { queue, window } => {
                        prop_assert!((1..=options.widest_window).contains(&window));
                        prop_assert!(windows.insert(queue, window).is_none(), "it was parked");
                    }
                    Step::Wait { wake, .. } => {
                        prop_assert!(wake.is_none_or(|wake| wake > now), "it would be asked for ever");
                        break;
                    }
                }
            }
            prop_assert_eq!(desk.in_hand().len(), in_hand.len());
            for (key, (_, since)) in &in_hand {
                prop_assert!(now.since(*since) < options.hold, "{} is held for too long", key);
            }
        }
        let left: Vec<u32> = desk.close().into_iter().map(|offer| offer.key).collect();
        prop_assert_eq!(left.len(), in_hand.len());
        prop_assert!(left.iter().all(|key| in_hand.contains_key(key)));
    }
}
