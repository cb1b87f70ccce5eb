//! A few seeds of what `make test-faults` does with many, and that such a simulation can fail at all.

use std::time::Duration;

use forecastle_protos::v1::RequestState;
use forecastle_simulation::world::{self, Settings};

#[test]
fn twenty_five_seeds_are_survived() {
    let (mut faults, mut requests, mut succeeded) = (0, 0, 0);
    for seed in 1..=25 {
        let outcome = world::run(seed, Settings::default()).unwrap();
        assert!(outcome.is_survived(), "{outcome}");
        faults += outcome.tally.values().sum::<u64>();
        requests += outcome.requests.values().sum::<u64>();
        succeeded += outcome.requests.get(&RequestState::Succeeded).copied().unwrap_or(0);
    }
    assert!(faults > 500, "{faults} faults are too few to say anything");
    // Some are cancelled, and a few fail: too much happened to one of their shards.
    assert!(succeeded * 10 > requests * 8, "only {succeeded} of {requests} requests succeeded");
}

/// A frontend that never gives anybody up keeps what is lost for ever, and the audit says so.
#[test]
fn without_a_sweeper_what_is_lost_is_found_missing() {
    let never = Settings { grace: Duration::from_hours(24 * 365), patience: Duration::from_mins(10) };
    let outcomes = (1..=3).map(|seed| world::run(seed, never).unwrap());
    let missed =
        outcomes.filter(|outcome| outcome.violations.iter().any(|text| text.contains("has not ended"))).count();
    assert!(missed > 0, "no seed noticed that there is no sweeper");
}
