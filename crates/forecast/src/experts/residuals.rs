//! What needs were of an expert's guesses, as a smooth distribution.
//!
//! A run that needed y where ŷ was guessed has the residual ln(y/ŷ). Around each one stands a kernel of Student's t
//! distribution with four degrees of freedom: its tails are heavy, as those of memory are. The bandwidth falls with
//! n^(-1/5) (Silverman, "Density estimation", 1986, with his robust spread). Something is left for needs above all that
//! were seen, spread evenly by proportion.
//!
//! Waste is memory · time: so a run counts for what is held by the time that it took, and for kills once.

use super::options::ExpertOptions;

/// Points at which the distribution is taken.
const POINTS: usize = 24;

/// Times the largest need of the distribution, where what was never seen may be met.
const UNSEEN_AT: [f64; 6] = [1.1, 1.25, 1.5, 2.0, 3.0, 4.0];

/// Of what was never seen, the part that is met at the last of these.
const MOST_OF_UNSEEN: f64 = 0.9;

/// Bandwidths above the largest residual up to which they reach.
const REACH: f64 = 6.0;

/// A residual and the time of its run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Residual {
    pub(super) value: f64,
    pub(super) time: f64,
}

/// The distribution at one point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    /// The residual.
    pub(super) at: f64,
    /// The part of all time in runs that needed no more.
    pub(super) of_time: f64,
    /// The part of all runs that needed no more.
    pub(super) of_runs: f64,
}

/// The distribution at points that rise; of at least one residual.
pub(super) fn distribution(residuals: &[Residual], options: &ExpertOptions) -> Vec<Point> {
    let mut sorted: Vec<f64> = residuals.iter().map(|residual| residual.value).collect();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let bandwidth = (options.bandwidth * spread(&sorted) * n.powf(-0.2)).max(options.least_bandwidth);
    let largest = sorted.last().copied().unwrap_or(0.0);
    let between = |from: f64, to: f64, count: usize| {
        (0..count).map(move |step| from + (to - from) * step as f64 / (count - 1) as f64)
    };
    let quantiles = between(0.0, 1.0, POINTS / 2).map(|probability| quantile(&sorted, probability));
    let mut points: Vec<f64> = quantiles
        .chain(between(largest, largest + REACH * bandwidth, POINTS / 4))
        .chain(between(quantile(&sorted, 0.5), largest + 2.0 * bandwidth, POINTS / 4))
        .chain(UNSEEN_AT.map(|times| largest + f64::ln(times)))
        .collect();
    points.sort_by(f64::total_cmp);
    points.dedup();

    let all: f64 = residuals.iter().map(|residual| residual.time).sum();
    let unseen = options.unseen / (n + 1.0);
    let furthest = f64::ln(UNSEEN_AT[UNSEEN_AT.len() - 1]);
    let point = |at: f64| {
        let (mut of_time, mut of_runs) = (0.0, 0.0);
        for residual in residuals {
            let below = student_t4((at - residual.value) / bandwidth);
            of_time += below * residual.time;
            of_runs += below;
        }
        // Spread evenly, by proportion, up to the furthest; some needs more than that.
        let found = unseen * (MOST_OF_UNSEEN * (at - largest) / furthest).clamp(0.0, MOST_OF_UNSEEN);
        let part = |seen: f64| (1.0 - unseen) * seen + found;
        Point { at, of_time: part(of_time / all), of_runs: part(of_runs / n) }
    };
    points.into_iter().map(point).collect()
}

/// The smaller of the standard deviation and the interquartile range by 1.34: zero where most residuals are the same.
fn spread(sorted: &[f64]) -> f64 {
    let n = sorted.len() as f64;
    let mean = sorted.iter().sum::<f64>() / n;
    let deviation = (sorted.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
    let quartiles = (quantile(sorted, 0.75) - quantile(sorted, 0.25)) / 1.34;
    deviation.min(quartiles)
}

/// By linear interpolation between order statistics.
fn quantile(sorted: &[f64], probability: f64) -> f64 {
    let rank = probability * sorted.len().saturating_sub(1) as f64;
    let below = (0..sorted.len()).rev().find(|place| *place as f64 <= rank).unwrap_or(0);
    let (low, high) = (sorted[below], sorted[(below + 1).min(sorted.len() - 1)]);
    low + (rank - below as f64) * (high - low)
}

/// P(T ≤ z) of Student's t distribution with four degrees of freedom.
fn student_t4(z: f64) -> f64 {
    let q = z / (4.0 + z * z).sqrt();
    0.5 + 0.75 * (q - q.powi(3) / 3.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernel_is_the_one_of_the_tables() {
        for (z, probability) in [(0.0, 0.5), (0.741, 0.75), (1.533, 0.9), (2.132, 0.95), (3.747, 0.99)] {
            assert!((student_t4(z) - probability).abs() < 1e-3, "{z}: {}", student_t4(z));
            assert!((student_t4(-z) - (1.0 - probability)).abs() < 1e-3);
        }
    }

    #[test]
    fn long_runs_weigh_by_their_time_and_kills_do_not() {
        let mut residuals = vec![Residual { value: 0.0, time: 1.0 }; 9];
        residuals.push(Residual { value: 1.0, time: 91.0 });
        let points = distribution(&residuals, &ExpertOptions { bandwidth: 0.1, ..ExpertOptions::default() });
        let middle = points.iter().find(|point| (0.3..0.7).contains(&point.at)).unwrap();
        assert!((middle.of_time - 0.09).abs() < 0.01 && (middle.of_runs - 0.9).abs() < 0.02, "{middle:?}");
    }

    proptest! {
        #[test]
        fn it_rises_and_leaves_something_for_what_was_never_seen(
            drawn in proptest::collection::vec((-3.0f64..3.0, 1.0f64..1e6), 1..60),
        ) {
            let residuals: Vec<_> = drawn.into_iter().map(|(value, time)| Residual { value, time }).collect();
            let points = distribution(&residuals, &ExpertOptions::default());
            prop_assert!(points.len() >= 2);
            for pair in points.windows(2) {
                prop_assert!(pair[0].at < pair[1].at);
                prop_assert!(pair[0].of_time <= pair[1].of_time + 1e-12 && pair[0].of_runs <= pair[1].of_runs + 1e-12);
            }
            prop_assert!(points.iter().all(|point| point.of_time < 1.0 && point.of_runs < 1.0 && point.of_runs > 0.0));
        }
    }
}
