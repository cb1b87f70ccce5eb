//! What a history teaches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forecastle_forecast::{
    Declared, DeclaredForecaster, Ending, Expert, FallbackForecaster, Features, Forecast, Forecaster, Learner,
    Observation, ProfileForecaster, ProfileOptions, Source,
};
use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, Reservation, ResourceVector};

pub(crate) fn features(input_bytes: u64) -> Features {
    Features { request_type: "archive".into(), unit: "sort".into(), input_bytes, input_items: 1, ..Features::default() }
}

pub(crate) fn success(input_bytes: u64, memory: Bytes) -> Observation {
    Observation {
        features: features(input_bytes),
        declared: Declared::default(),
        ending: Ending::Succeeded,
        memory,
        cpu_time: Duration::from_secs(3),
        io_bytes: 50 << 20,
        duration: Duration::from_secs(5),
    }
}

pub(crate) fn killed(input_bytes: u64, limit: Bytes) -> Observation {
    Observation { ending: Ending::OutOfMemory { limit }, memory: limit, ..success(input_bytes, limit) }
}

pub(crate) fn declared(memory: Bytes) -> Declared {
    Declared::unbounded(Reservation::new(ResourceVector::new(CpuMillis::cores(1), memory), Duration::from_mins(1)))
}

fn memory(forecast: &Forecast) -> Bytes {
    forecast.reservation.vector.memory
}

#[test]
fn declared_1_gib_and_one_run_at_50_mib_reserves_less_than_100_mib() {
    let profile = ProfileForecaster::default();
    profile.observe(&success(1000, Bytes::mib(50)));
    let forecast = profile.forecast(&features(1000), &declared(Bytes::gib(1)));
    assert_eq!(forecast.source, Source::Profile);
    assert!((Bytes::mib(50)..Bytes::mib(100)).contains(&memory(&forecast)), "{}", memory(&forecast));
    assert!(!forecast.version.is_empty());
}

#[test]
fn cat_that_used_2_mib_reserves_less_than_20_mib_whatever_the_file() {
    let profile = ProfileForecaster::default();
    profile.observe(&success(3 << 30, Bytes::mib(2)));
    let forecast = profile.forecast(&features(3 << 30), &declared(Bytes::mib(64)));
    assert!((Bytes::mib(2)..Bytes::mib(20)).contains(&memory(&forecast)), "{}", memory(&forecast));
}

#[test]
fn a_kill_at_64_mib_leads_past_200_mib_within_three_attempts() {
    let declared = declared(Bytes::mib(64));
    // By the ladder of the first forecast …
    let profile = ProfileForecaster::default();
    let first = profile.forecast(&features(1000), &declared);
    let mut limit = memory(&first);
    let mut attempts = 0;
    while limit < Bytes::mib(200) {
        attempts += 1;
        limit = first.reservation_after(attempts, limit, &declared).unwrap().vector.memory;
    }
    assert!(attempts <= 3);
    // … and by forecasts that learn of each kill.
    let mut limit = memory(&first);
    for _ in 0..3 {
        profile.observe(&killed(1000, limit));
        let next = profile.forecast(&features(1000), &declared);
        assert_eq!(next.source, Source::Profile);
        assert!(memory(&next) > limit);
        limit = memory(&next);
    }
    assert!(limit >= Bytes::mib(200));
}

#[test]
fn a_kill_raises_what_successes_had_taught() {
    let profile = ProfileForecaster::default();
    for _ in 0..100 {
        profile.observe(&success(1000, Bytes::mib(20)));
    }
    let before = memory(&profile.forecast(&features(1000), &declared(Bytes::gib(1))));
    profile.observe(&killed(1000, before));
    assert!(memory(&profile.forecast(&features(1000), &declared(Bytes::gib(1)))) > before);
    // Nothing says that smaller inputs need it too.
    assert!(memory(&profile.forecast(&features(10), &declared(Bytes::gib(1)))) <= before);
}

#[test]
fn one_shard_that_leaks_does_not_make_all_others_reserve_the_most_for_ever() {
    let profile = ProfileForecaster::default();
    for _ in 0..50 {
        profile.observe(&success(1000, Bytes::mib(20)));
    }
    for doublings in 0..6 {
        profile.observe(&killed(1000, Bytes::mib(64 << doublings)));
    }
    assert!(memory(&profile.forecast(&features(1000), &declared(Bytes::gib(1)))) > Bytes::gib(2));
    for _ in 0..10 {
        profile.observe(&success(1001, Bytes::mib(20)));
    }
    let after = memory(&profile.forecast(&features(1000), &declared(Bytes::gib(1))));
    assert!(after < Bytes::mib(40), "{after}");
}

#[test]
fn a_success_settles_the_kills_that_led_to_it() {
    let profile = ProfileForecaster::default();
    for limit in [64, 128] {
        profile.observe(&killed(1000, Bytes::mib(limit)));
    }
    profile.observe(&success(1000, Bytes::mib(200)));
    assert_eq!(profile.runs(), 1);
    let forecast = profile.forecast(&features(1000), &declared(Bytes::mib(64)));
    assert!((Bytes::mib(200)..Bytes::mib(400)).contains(&memory(&forecast)), "{}", memory(&forecast));
}

#[test]
fn a_need_of_10_mib_and_twice_the_input_is_learnt_within_a_fifth_in_twenty_runs() {
    let need = |input: u64| Bytes::mib(10).0 + 2 * input;
    let profile = ProfileForecaster::default();
    for run in 0..20_u64 {
        let input = Bytes::mib(1 + run * 37 % 101).0;
        profile.observe(&success(input, Bytes(need(input))));
    }
    for input in [2, 10, 33, 70, 100].map(|mib| Bytes::mib(mib).0) {
        let reserved = memory(&profile.forecast(&features(input), &declared(Bytes::gib(4)))).0 as f64;
        let ratio = reserved / need(input) as f64;
        assert!((1.0..1.2).contains(&ratio), "{input}: {ratio}");
    }
    for input in [200, 1000, 5000].map(|mib| Bytes::mib(mib).0) {
        let reserved = memory(&profile.forecast(&features(input), &declared(Bytes::gib(4)))).0 as f64;
        let ratio = reserved / need(input) as f64;
        assert!((1.0..1.5).contains(&ratio), "beyond: {input}: {ratio}");
    }
}

#[test]
fn a_noisy_linear_need_is_covered_beyond_the_sizes_seen() {
    let need = |input: u64, noise: u64| Bytes::mib(10).0 + 2 * input * (90 + noise % 21) / 100;
    let profile = ProfileForecaster::default();
    for run in 0..60_u64 {
        let input = Bytes::mib(20 + run * 37 % 101).0;
        profile.observe(&success(input, Bytes(need(input, run * 7))));
    }
    let input = Bytes::mib(1000).0;
    let reserved = memory(&profile.forecast(&features(input), &declared(Bytes::gib(8)))).0;
    assert!(reserved >= need(input, 20), "the worst case");
    assert!(reserved < 2 * need(input, 10));
}

#[test]
fn a_need_that_does_not_depend_on_size_is_not_drawn_as_a_line() {
    let profile = ProfileForecaster::default();
    for run in 0..40_u64 {
        profile.observe(&success(Bytes::mib(1 + run * 37 % 101).0, Bytes::mib(30 + run % 3)));
    }
    for input in [1, 50, 100, 10_000].map(|mib| Bytes::mib(mib).0) {
        let reserved = memory(&profile.forecast(&features(input), &declared(Bytes::gib(4))));
        assert!((Bytes::mib(32)..Bytes::mib(45)).contains(&reserved), "{input}: {reserved}");
    }
}

#[test]
fn after_one_small_input_a_huge_one_gets_several_times_as_much_but_no_more_than_declared() {
    let profile = ProfileForecaster::default();
    profile.observe(&success(1 << 10, Bytes::mib(10)));
    let huge = |said| memory(&profile.forecast(&features(1 << 30), &declared(said)));
    assert!((Bytes::mib(80)..Bytes::mib(200)).contains(&huge(Bytes::gib(1))), "{}", huge(Bytes::gib(1)));
    assert_eq!(huge(Bytes::mib(64)), Bytes::mib(64));
    let somewhat = memory(&profile.forecast(&features(4 << 10), &declared(Bytes::gib(1))));
    assert!((Bytes::mib(40)..Bytes::mib(100)).contains(&somewhat), "{somewhat}");
}

#[test]
fn cpu_io_and_duration_follow_what_was_measured() {
    let profile = ProfileForecaster::default();
    let mut io_declared = declared(Bytes::gib(1));
    io_declared.reservation.vector.io = BytesPerSecond::mib(1);
    for _ in 0..30 {
        profile.observe(&success(1000, Bytes::mib(50)));
    }
    let forecast = profile.forecast(&features(1000), &io_declared);
    let reserved = &forecast.reservation;
    assert!((600..750).contains(&reserved.vector.cpu.0), "3 s of CPU in 5 s: {}", reserved.vector.cpu);
    assert_eq!(reserved.vector.io, BytesPerSecond::mib(10));
    assert!((Duration::from_secs(5)..Duration::from_secs(7)).contains(&reserved.duration), "{:?}", reserved.duration);
    assert_eq!(forecast.need_at(0.5).unwrap().duration, Duration::from_secs(5));
    let silent = profile.forecast(&features(1000), &declared(Bytes::gib(1)));
    assert_eq!(silent.reservation.vector.io, BytesPerSecond::ZERO, "nobody declared any");
}

#[test]
fn scratch_disk_and_named_resources_stay_as_declared_whatever_is_learnt() {
    let profile = Arc::new(ProfileForecaster::default());
    let chain = FallbackForecaster::new(vec![Arc::clone(&profile) as Arc<dyn Expert>], DeclaredForecaster::default());
    let mut declared = declared(Bytes::gib(1));
    let vector = &mut declared.reservation.vector;
    *vector = vector.clone().with_scratch(Bytes::gib(20)).with_named("gpu", 1);
    let keeps = |source: Source| {
        let forecast = chain.forecast(&features(1000), &declared);
        assert_eq!(forecast.source, source);
        let after_a_kill = forecast.reservation_after(1, Bytes::gib(2), &declared).unwrap();
        for vector in [&forecast.reservation.vector, &after_a_kill.vector] {
            assert_eq!((vector.scratch, vector.named["gpu"]), (Bytes::gib(20), 1), "{source:?}");
        }
    };
    keeps(Source::Declared);
    profile.observe(&killed(1000, Bytes::gib(1)));
    keeps(Source::Profile);
    for _ in 0..30 {
        profile.observe(&success(1000, Bytes::mib(50)));
    }
    keeps(Source::Profile);
}

#[test]
fn durations_that_grow_with_the_input_are_told_apart() {
    let profile = ProfileForecaster::default();
    for run in 1..=30_u64 {
        let mut observation = success(Bytes::mib(run).0, Bytes::mib(50));
        observation.duration = Duration::from_secs(1 + run);
        profile.observe(&observation);
    }
    let at = |mib: u64| {
        profile.forecast(&features(Bytes::mib(mib).0), &declared(Bytes::gib(1))).need_at(0.5).unwrap().duration
    };
    assert!(at(3).abs_diff(Duration::from_secs(4)) < Duration::from_millis(100), "{:?}", at(3));
    assert!(at(28).abs_diff(Duration::from_secs(29)) < Duration::from_millis(100), "{:?}", at(28));
}

#[test]
fn a_unit_that_changes_is_followed() {
    let profile = ProfileForecaster::default();
    for _ in 0..256 {
        profile.observe(&success(1000, Bytes::mib(400)));
    }
    for _ in 0..256 {
        profile.observe(&success(1000, Bytes::mib(40)));
    }
    let reserved = memory(&profile.forecast(&features(1000), &declared(Bytes::gib(1))));
    assert!(reserved < Bytes::mib(50), "{reserved}");
}

#[test]
fn a_run_that_needed_more_than_it_was_thought_to_is_taken_in_at_once() {
    let profile = ProfileForecaster::default();
    // Hours of a gigabyte are dearer than another attempt.
    let long = |memory| Observation { duration: Duration::from_hours(2), ..success(1000, memory) };
    for _ in 0..205 {
        profile.observe(&long(Bytes::mib(20)));
    }
    let second = |profile: &ProfileForecaster| profile.forecast(&features(1000), &declared(Bytes::gib(1))).ladder[1];
    assert!(second(&profile) < Bytes::mib(100));
    profile.observe(&long(Bytes::mib(100)));
    assert!(second(&profile) >= Bytes::mib(100), "the second attempt covers it: {}", second(&profile));
}

#[test]
fn units_do_not_learn_from_each_other() {
    let profile = ProfileForecaster::default();
    profile.observe(&success(1000, Bytes::mib(50)));
    let other = Features { unit: "index".into(), ..features(1000) };
    assert!(profile.consider(&other, &declared(Bytes::gib(1))).is_none());
    assert_eq!(profile.forecast(&other, &declared(Bytes::gib(1))).source, Source::Declared);
}

#[test]
fn a_type_with_a_stricter_objective_reserves_more_after_a_kill() {
    let reserved = |objective: f64| {
        let objectives = BTreeMap::from([("archive".to_owned(), objective)]);
        let options = ProfileOptions { objectives, ..ProfileOptions::default() };
        let profile = ProfileForecaster::new(options, DeclaredForecaster::default());
        assert!((profile.objective("archive") - objective).abs() < 1e-12 && profile.objective("other") < 0.011);
        for run in 0..250_u64 {
            // One in twenty-five needs half as much again.
            let memory = Bytes::mib(if run % 25 == 11 { 1500 } else { 1000 + run % 7 });
            profile.observe(&Observation { duration: Duration::from_mins(1), ..success(0, memory) });
        }
        memory(&profile.forecast(&features(0), &declared(Bytes::gib(4))))
    };
    let (strict, lax) = (reserved(0.001), reserved(0.2));
    assert!(lax < Bytes::mib(1200) && strict >= Bytes::mib(1500), "{lax} {strict}");
}
