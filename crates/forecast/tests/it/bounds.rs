//! What holds whatever is observed.

use std::collections::BTreeMap;
use std::time::Duration;

use forecastle_forecast::experts::ExpertOptions;
use forecastle_forecast::{
    Declared, DeclaredForecaster, Ending, Features, Forecaster, Learner, Observation, ParameterValue,
    ProfileForecaster, ProfileOptions, Rejection,
};
use forecastle_resources::{Bytes, CpuMillis, Reservation, ResourceVector};
use proptest::prelude::*;

use crate::learning::{declared, features, success};

fn amounts() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), 0u64..1 << 20, 0u64..1 << 45, any::<u64>()]
}

fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        any::<Duration>(),
        (1u64..1 << 24).prop_map(Duration::from_millis)
    ]
}

fn observations() -> impl Strategy<Value = Observation> {
    let endings = prop_oneof![
        4 => Just(Ending::Succeeded),
        2 => amounts().prop_map(|limit| Ending::OutOfMemory { limit: Bytes(limit) }),
        1 => Just(Ending::Other),
    ];
    (endings, amounts(), amounts(), amounts(), durations(), durations(), any::<f64>()).prop_map(
        |(ending, input, memory, io_bytes, cpu_time, duration, number)| Observation {
            features: Features {
                parameters: BTreeMap::from([("level".to_owned(), ParameterValue::Number(number))]),
                ..features(input)
            },
            declared: Declared::default(),
            ending,
            memory: Bytes(memory),
            cpu_time,
            io_bytes,
            duration,
        },
    )
}

fn bounds() -> impl Strategy<Value = Declared> {
    let vectors = || {
        (0u64..1 << 20, amounts(), 0u64..1 << 40, 0u64..3).prop_map(|(cpu, memory, scratch, gpus)| {
            ResourceVector::new(CpuMillis(cpu), Bytes(memory)).with_scratch(Bytes(scratch)).with_named("gpu", gpus)
        })
    };
    (vectors(), vectors(), vectors(), durations()).prop_map(|(reserved, minimum, mut maximum, duration)| {
        // A minimum below the maximum, where there is one.
        for (least, most) in [
            (minimum.cpu.0, &mut maximum.cpu.0),
            (minimum.memory.0, &mut maximum.memory.0),
            (minimum.scratch.0, &mut maximum.scratch.0),
        ] {
            if *most > 0 {
                *most = least.max(*most);
            }
        }
        Declared { reservation: Reservation::new(reserved, duration), minimum: minimum.with_named("gpu", 0), maximum }
    })
}

proptest! {
    #[test]
    fn whatever_is_observed_bounds_ladder_and_quantiles_hold(
        history in proptest::collection::vec(observations(), 0..60), declared in bounds(), input in amounts(),
    ) {
        let profile = ProfileForecaster::default();
        for observation in &history {
            profile.observe(observation);
        }
        let learnt_or_not = profile.learnt() + profile.rejected().values().sum::<u64>();
        prop_assert_eq!(learnt_or_not, history.len() as u64, "every observation is accounted for");

        for forecast in [
            profile.forecast(&features(input), &declared),
            DeclaredForecaster::default().forecast(&features(input), &declared),
        ] {
            let vector = &forecast.reservation.vector;
            prop_assert!(declared.minimum.fits_in(vector));
            prop_assert_eq!(&declared.clamp(vector), vector);
            prop_assert_eq!(vector.scratch, declared.clamp(&declared.reservation.vector).scratch, "as declared");

            prop_assert_eq!(forecast.ladder[0], vector.memory);
            prop_assert!(forecast.ladder.is_sorted_by(|a, b| a < b));
            let end = forecast.ladder.last().copied();
            if let Some(maximum) = declared.maximum_memory() {
                prop_assert_eq!(end, Some(maximum));
            } else {
                prop_assert!(forecast.ladder.len() > 3 || end == Some(Bytes(u64::MAX)), "{:?}", forecast.ladder);
            }

            prop_assert!(!forecast.need.is_empty());
            for pair in forecast.need.windows(2) {
                prop_assert!(pair[0].probability < pair[1].probability);
                prop_assert!(pair[0].cpu_millis <= pair[1].cpu_millis);
                prop_assert!(pair[0].memory_bytes <= pair[1].memory_bytes);
                prop_assert!(pair[0].io_bytes_per_second <= pair[1].io_bytes_per_second);
                prop_assert!(pair[0].duration <= pair[1].duration);
            }
            prop_assert!((0.0..=1.0).contains(&forecast.quantile));
        }
    }

    #[test]
    fn the_forecast_right_after_a_kill_is_above_its_limit_or_at_the_maximum(
        history in proptest::collection::vec(observations(), 0..40), limit in 1u64..1 << 49, input in 0u64..1 << 50,
        maximum in prop_oneof![Just(0), 1u64..1 << 50],
    ) {
        let declared = Declared {
            maximum: ResourceVector::new(CpuMillis::ZERO, Bytes(maximum)),
            ..declared(Bytes::mib(64))
        };
        let profile = ProfileForecaster::default();
        for observation in &history {
            profile.observe(observation);
        }
        profile.observe(&Observation {
            ending: Ending::OutOfMemory { limit: Bytes(limit) },
            ..success(input, Bytes(limit))
        });
        let next = profile.forecast(&features(input), &declared).reservation.vector.memory;
        prop_assert!(next > Bytes(limit) || (maximum > 0 && next == Bytes(maximum)), "{} after {}", next, limit);
    }
}

#[test]
fn absurd_observations_are_counted_and_change_nothing() {
    let profile = ProfileForecaster::default();
    for _ in 0..10 {
        profile.observe(&success(1000, Bytes::mib(50)));
    }
    let before = profile.forecast(&features(1000), &declared(Bytes::gib(1)));
    for _ in 0..300 {
        profile.observe(&Observation { duration: Duration::ZERO, ..success(1000, Bytes::mib(50)) });
        profile.observe(&success(1000, Bytes(u64::MAX)));
        profile.observe(&Observation { ending: Ending::Other, ..success(1000, Bytes::gib(50)) });
    }
    assert_eq!(profile.forecast(&features(1000), &declared(Bytes::gib(1))), before);
    let expected = [Rejection::Unfinished, Rejection::NoDuration, Rejection::AbsurdMemory].map(|reason| (reason, 300));
    assert_eq!(profile.rejected(), BTreeMap::from(expected));
}

#[test]
fn one_type_remembers_no_more_than_its_window() {
    let profile = ProfileForecaster::default();
    for run in 0..10_000 {
        profile.observe(&success(run, Bytes::mib(50 + run % 7)));
    }
    assert_eq!((profile.profiles(), profile.runs()), (1, ProfileOptions::default().experts.window));
}

#[test]
fn ten_thousand_types_are_bounded_and_the_least_recently_learnt_goes_first() {
    let options = ProfileOptions {
        experts: ExpertOptions { window: 4, ..ExpertOptions::default() },
        profiles: 9_990,
        ..ProfileOptions::default()
    };
    let profile = ProfileForecaster::new(options.clone(), DeclaredForecaster::default());
    let observe = |kind: u32| {
        let mut observation = success(1000, Bytes::mib(50));
        observation.features.request_type = format!("type-{kind}");
        profile.observe(&observation);
    };
    for kind in 0..10_000 {
        for _ in 0..6 {
            observe(kind);
        }
        if kind == 5_000 {
            observe(0);
        }
    }
    assert_eq!(profile.profiles(), options.profiles);
    assert_eq!(profile.runs(), options.profiles * options.experts.window);
    let knows = |kind: u32| {
        let features = Features { request_type: format!("type-{kind}"), ..features(1000) };
        !profile.forecast(&features, &declared(Bytes::gib(1))).version.is_empty()
    };
    assert!(knows(0), "learnt again in between");
    assert!(!knows(1) && !knows(10) && knows(11) && knows(9_999));
}

#[test]
fn several_threads_learn_and_forecast_at_once() {
    let profile = ProfileForecaster::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for run in 0..500 {
                    profile.observe(&success(run, Bytes::mib(50)));
                    let forecast = profile.forecast(&features(run), &declared(Bytes::gib(1)));
                    assert!(forecast.reservation.vector.memory < Bytes::mib(100));
                }
            });
        }
    });
    assert_eq!(profile.learnt(), 2000);
}
