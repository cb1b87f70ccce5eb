//! How long a forecast takes, and a completion: of one unit with a full history, on this machine.
//!
//! Prints medians; asserts nothing. Run it built for release: `cargo run --release -p forecastle-forecast --example
//! measure-forecasts`.

use std::time::{Duration, Instant};

use forecastle_forecast::{Declared, Ending, Features, Forecaster, Learner, Observation, ProfileForecaster};
use forecastle_resources::{Bytes, CpuMillis, Reservation, ResourceVector};

const LEARNT: u64 = 2_000;
const MEASURED: u64 = 2_001;

#[expect(clippy::print_stdout, reason = "what it is for")]
fn main() {
    let forecaster = ProfileForecaster::default();
    let learning = median(LEARNT, |run| forecaster.observe(&observation(run)));
    let declared = declared();
    let forecasting = median(MEASURED, |run| {
        std::hint::black_box(forecaster.forecast(&features(run * 7 + 3), &declared));
    });
    println!("a completion learnt  {:8.2} µs", learning.as_secs_f64() * 1e6);
    println!("a shard forecast     {:8.2} µs", forecasting.as_secs_f64() * 1e6);
}

fn median(times: u64, mut of: impl FnMut(u64)) -> Duration {
    let mut taken: Vec<Duration> = (0..times)
        .map(|run| {
            let start = Instant::now();
            of(run);
            start.elapsed()
        })
        .collect();
    taken.sort();
    taken[taken.len() / 2]
}

fn features(run: u64) -> Features {
    Features {
        request_type: "archive".into(),
        unit: "sort".into(),
        input_bytes: (run * 7_919 % 1_009 + 1) << 20,
        input_items: 1,
        ..Features::default()
    }
}

fn declared() -> Declared {
    let reserved = ResourceVector::new(CpuMillis::cores(1), Bytes::gib(4));
    Declared {
        reservation: Reservation::new(reserved, Duration::from_mins(1)),
        maximum: ResourceVector::new(CpuMillis::ZERO, Bytes::gib(8)),
        ..Declared::default()
    }
}

/// Memory that grows with the input, with some noise.
fn observation(run: u64) -> Observation {
    let features = features(run);
    let noise = 100 + run * 31 % 23;
    Observation {
        memory: Bytes((Bytes::mib(50).0 + features.input_bytes) * noise / 100),
        features,
        declared: declared(),
        ending: Ending::Succeeded,
        cpu_time: Duration::from_millis(3_000 + run % 100),
        io_bytes: 50 << 20,
        duration: Duration::from_millis(5_000 + run * 17 % 900),
    }
}
