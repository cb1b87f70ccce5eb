//! Estimates from a history: a base (nothing, or a line through the input's size) and an offset above it.
//!
//! # Where the formulas come from
//!
//! - The memory of the first attempt minimises the expected waste of first attempt and retries over the history
//!   (Tovar, da Silva, Juve, Deelman, Allcock, Thain, Livny, "A job sizing strategy for high-throughput scientific
//!   workflows", IEEE TPDS 29(2), 2018): a run that needs `m` for `t` seconds wastes `(a − m)·t` if it fits in `a`; if
//!   it does not, the whole failed attempt `a·t` is lost, and so on up the ladder. A failed attempt also makes its
//!   dependants wait, so it counts [`KILL_WEIGHT`] times.
//! - A line through the input's size with an offset above it, for needs that grow with their input, is that of Witt,
//!   Wagner and Leser, "Feedback-based resource allocation for batch scheduling of scientific workflows", HPCS 2019;
//!   here the offset is chosen by the cost above.
//! - Beyond the largest size seen, the line is widened by twice the standard error of its slope for every byte
//!   further (the textbook's confidence band of simple linear regression), and the margin grows up to twofold.

use crate::ladder;
use forecastle_resources::Bytes;

/// Probabilities of the quantiles of need.
pub(crate) const PROBABILITIES: [f64; 4] = [0.5, 0.9, 0.95, 0.99];

/// Least runs that a line is drawn through.
const LEAST_FOR_A_LINE: usize = 4;

/// A failed attempt counts so many times: its memory is lost, and what depends on it waits.
const KILL_WEIGHT: f64 = 2.0;

/// Offsets that are tried, evenly spaced over the sorted history.
const CANDIDATES: usize = 33;

/// A margin that never goes away, as a part of the estimate.
const LASTING_MARGIN: f64 = 0.10;

/// A margin for what a short history has not shown, divided by its length.
const FIRST_MARGIN: f64 = 0.60;

/// The least margin, in bytes: what a process varies by from run to run.
const LEAST_MARGIN: f64 = (2_u64 << 20) as f64;

/// The least that is reserved without a declared maximum below it, in bytes: a process must be able to start.
pub(crate) const LEAST_MEMORY: f64 = (8_u64 << 20) as f64;

/// One run of a history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// Size of the input in bytes.
    pub(crate) size: f64,
    /// What was needed, in any unit.
    pub(crate) value: f64,
    /// How long it was held.
    pub(crate) seconds: f64,
}

/// The value that a further observation stays below with at least this probability, if the history is exchangeable
/// with it: the ⌈p·(n+1)⌉-th smallest of `sorted`, or the largest.
pub(crate) fn quantile(sorted: &[f64], probability: f64) -> f64 {
    let rank = probability * (sorted.len() as f64 + 1.0);
    let below = (1..=sorted.len()).find(|k| *k as f64 >= rank);
    sorted.get(below.unwrap_or(sorted.len()).saturating_sub(1)).copied().unwrap_or(0.0)
}

/// The part of the estimate that is added to it after `runs` runs.
pub(crate) fn margin(runs: usize) -> f64 {
    LASTING_MARGIN + FIRST_MARGIN / runs.max(1) as f64
}

/// What history knows of memory if the first attempt is given `first` and the second at least `second` bytes: the
/// byte·seconds that a run of this need wastes.
pub(crate) fn waste(first: f64, second: f64, needed: f64, seconds: f64) -> f64 {
    let (mut held, mut next, mut lost) = (first, second.max(2.0 * first), 0.0);
    while held < needed {
        lost += held;
        (held, next) = (next, 2.0 * next);
    }
    (KILL_WEIGHT * lost + held - needed) * seconds
}

/// Least squares through (size, value), rising.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Line {
    intercept: f64,
    slope: f64,
    /// Standard error of the slope.
    slope_error: f64,
    smallest: f64,
    largest: f64,
}

impl Line {
    /// `None` if there are too few runs, they all read as much, or what they need does not rise with it.
    fn through(points: &[Point]) -> Option<Self> {
        let n = points.len() as f64;
        let smallest = points.iter().map(|p| p.size).fold(f64::INFINITY, f64::min);
        let largest = points.iter().map(|p| p.size).fold(0.0, f64::max);
        if points.len() < LEAST_FOR_A_LINE || largest <= smallest {
            return None;
        }
        let mean_size = points.iter().map(|p| p.size).sum::<f64>() / n;
        let mean_value = points.iter().map(|p| p.value).sum::<f64>() / n;
        let sxx: f64 = points.iter().map(|p| (p.size - mean_size).powi(2)).sum();
        let sxy: f64 = points.iter().map(|p| (p.size - mean_size) * (p.value - mean_value)).sum();
        let slope = sxy / sxx;
        if !slope.is_finite() || slope <= 0.0 {
            return None;
        }
        let intercept = mean_value - slope * mean_size;
        let squares: f64 = points.iter().map(|p| (p.value - intercept - slope * p.size).powi(2)).sum();
        let slope_error = (squares / (n - 2.0) / sxx).sqrt();
        Some(Self { intercept, slope, slope_error, smallest, largest })
    }

    /// Below the smallest size it is what it is there; beyond the largest it is widened.
    fn at(&self, size: f64) -> f64 {
        let beyond = (size - self.largest).max(0.0);
        self.intercept + self.slope * size.max(self.smallest) + 2.0 * self.slope_error * beyond
    }

    /// How far beyond the largest size seen, as a part of it, at most 1.
    fn excess(&self, size: f64) -> f64 {
        ((size - self.largest) / self.largest).clamp(0.0, 1.0)
    }
}

/// A base and the offsets above it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    line: Option<Line>,
    /// Quantiles of what history lies above the base, at [`PROBABILITIES`].
    offsets: [f64; 4],
    /// The most that history lies above the base.
    reach: f64,
    /// The offset of the first attempt.
    chosen: f64,
    /// The part of history that the first attempt would have been enough for, of one run more than there were.
    coverage: f64,
}

impl Estimate {
    /// The size-independent estimate.
    pub(crate) fn constant(points: &[Point]) -> Self {
        Self::above(None, points)
    }

    /// The estimate that rises with the input's size, if history does.
    pub(crate) fn linear(points: &[Point]) -> Option<Self> {
        Line::through(points).map(|line| Self::above(Some(line), points))
    }

    /// The one of both that is nearer to history: the line must be nearer by a tenth.
    pub(crate) fn nearest(points: &[Point]) -> Self {
        let constant = Self::constant(points);
        let distance =
            |e: &Self| -> f64 { points.iter().map(|p| (p.value - e.base(p.size) - e.offsets[0]).abs()).sum() };
        match Self::linear(points) {
            Some(linear) if distance(&linear) < 0.9 * distance(&constant) => linear,
            _ => constant,
        }
    }

    fn above(line: Option<Line>, points: &[Point]) -> Self {
        let base = |size: f64| line.map_or(0.0, |l| l.at(size));
        let mut above: Vec<f64> = points.iter().map(|p| p.value - base(p.size)).collect();
        above.sort_by(f64::total_cmp);
        let reach = above.last().copied().unwrap_or(0.0);
        let mut best = (f64::INFINITY, reach);
        for step in 0..CANDIDATES {
            let rank = step * above.len().saturating_sub(1) / (CANDIDATES - 1);
            let offset = above.get(rank).copied().unwrap_or(0.0);
            let cost: f64 = points
                .iter()
                .map(|p| waste((base(p.size) + offset).max(1.0), base(p.size) + reach, p.value, p.seconds))
                .sum();
            // Of equal costs the larger offset: it kills less.
            if cost <= best.0 {
                best = (cost, offset);
            }
        }
        let covered = above.iter().filter(|value| **value <= best.1).count();
        Self {
            line,
            offsets: PROBABILITIES.map(|p| quantile(&above, p)),
            reach,
            chosen: best.1,
            coverage: covered as f64 / (above.len() as f64 + 1.0),
        }
    }

    fn base(&self, size: f64) -> f64 {
        self.line.map_or(0.0, |line| line.at(size))
    }

    /// True if it rises with the input's size.
    pub(crate) fn is_linear(&self) -> bool {
        self.line.is_some()
    }

    /// The probability that the first attempt is enough, before any margin.
    pub(crate) fn coverage(&self) -> f64 {
        self.coverage
    }

    /// The quantile at `PROBABILITIES[index]` for an input of this size.
    pub(crate) fn at(&self, index: usize, size: f64) -> f64 {
        (self.base(size) + self.offsets.get(index).copied().unwrap_or(self.reach)).max(0.0)
    }

    /// Bytes for the first attempt, and the least for the second, after `runs` runs. The second covers all of
    /// history, unless that is more than eight times the first: then the ladder gets there in steps.
    pub(crate) fn memory(&self, size: f64, runs: usize) -> (f64, f64) {
        let part = margin(runs) * (1.0 + self.line.map_or(0.0, |line| line.excess(size)));
        let with_margin = |value: f64| (value + (value * part).max(LEAST_MARGIN)).max(LEAST_MEMORY);
        let first = with_margin((self.base(size) + self.chosen).max(0.0));
        let second = with_margin((self.base(size) + self.reach).max(0.0)).clamp(2.0 * first, 8.0 * first);
        (first, second)
    }
}

/// What a run that was killed at `limit` is taken to need: the ladder's next rung.
pub(crate) fn imputed(limit: u64) -> f64 {
    ladder::next_rung(&[], 1, Bytes(limit)).0 as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: f64 = (1 << 20) as f64;

    fn points(values: &[(f64, f64)]) -> Vec<Point> {
        values.iter().map(|(size, value)| Point { size: *size, value: *value, seconds: 1.0 }).collect()
    }

    #[test]
    fn quantiles_are_cautious_about_short_histories() {
        assert!((quantile(&[1.0, 2.0, 3.0], 0.5) - 2.0).abs() < f64::EPSILON);
        assert!((quantile(&[1.0, 2.0, 3.0], 0.9) - 3.0).abs() < f64::EPSILON);
        assert!(quantile(&[], 0.9).abs() < f64::EPSILON);
    }

    #[test]
    fn waste_is_what_is_held_and_not_needed_and_every_failed_attempt() {
        assert!((waste(100.0, 0.0, 60.0, 2.0) - 80.0).abs() < 1e-9);
        // 100 fails, 200 fails, 400 is enough.
        assert!((waste(100.0, 0.0, 300.0, 1.0) - (KILL_WEIGHT * 300.0 + 100.0)).abs() < 1e-9);
    }

    #[test]
    fn a_rare_large_need_is_left_to_the_second_attempt_and_a_frequent_one_is_not() {
        let mut rare: Vec<(f64, f64)> = vec![(0.0, 20.0 * MIB); 95];
        rare.extend(vec![(0.0, 400.0 * MIB); 5]);
        let estimate = Estimate::constant(&points(&rare));
        let (first, second) = estimate.memory(0.0, 100);
        assert!(first < 30.0 * MIB, "{first}");
        assert!((2.0 * first..=8.0 * first).contains(&second));
        assert!(estimate.coverage() > 0.9 && estimate.coverage() < 0.96);

        let mut frequent: Vec<(f64, f64)> = vec![(0.0, 250.0 * MIB); 60];
        frequent.extend(vec![(0.0, 400.0 * MIB); 40]);
        assert!(Estimate::constant(&points(&frequent)).memory(0.0, 100).0 >= 400.0 * MIB);
    }

    #[test]
    fn the_margin_shrinks_with_the_history() {
        assert!(margin(1) > margin(2) && margin(2) > margin(100));
        assert!(margin(1) < 1.0, "one run of 50 MiB must not lead to 100");
        assert!(margin(20) < 0.2);
    }

    #[test]
    fn a_line_is_drawn_only_where_need_rises_with_size() {
        assert!(Estimate::linear(&points(&[(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)])).is_none(), "too few");
        assert!(Estimate::linear(&points(&[(5.0, 1.0), (5.0, 2.0), (5.0, 3.0), (5.0, 9.0)])).is_none(), "one size");
        assert!(Estimate::linear(&points(&[(1.0, 9.0), (2.0, 6.0), (3.0, 3.0), (4.0, 1.0)])).is_none(), "falls");
        assert!(Estimate::linear(&points(&[(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (4.0, 4.0)])).is_some());
    }

    #[test]
    fn outside_of_the_sizes_seen_the_line_is_cautious() {
        let noisy = points(&[(10.0, 20.0), (20.0, 44.0), (30.0, 57.0), (40.0, 82.0), (50.0, 99.0)]);
        let line = Line::through(&noisy).unwrap();
        assert!((line.at(1.0) - line.at(10.0)).abs() < 1e-9, "never less than at the smallest size");
        let bare = line.intercept + line.slope * 500.0;
        assert!(line.at(500.0) > bare, "wider than the bare line");
        assert!((line.at(50.0) - line.intercept - line.slope * 50.0).abs() < 1e-9);
    }

    #[test]
    fn the_margin_doubles_towards_twice_the_largest_size_seen() {
        let exact: Vec<(f64, f64)> = (1..=20).map(|x| (f64::from(x) * MIB, f64::from(x) * 100.0 * MIB)).collect();
        let line = Estimate::linear(&points(&exact)).unwrap();
        let above = |size: f64| line.memory(size * MIB, 20).0 / (size * 100.0 * MIB) - 1.0;
        assert!((above(20.0) - margin(20)).abs() < 1e-6, "{}", above(20.0));
        assert!((above(30.0) - 1.5 * margin(20)).abs() < 1e-6, "{}", above(30.0));
        assert!((above(400.0) - 2.0 * margin(20)).abs() < 1e-6, "{}", above(400.0));
    }

    proptest! {
        #[test]
        fn the_second_attempt_gets_at_least_twice_the_first_and_both_are_finite(
            values in proptest::collection::vec((0.0f64..1e18, 1.0f64..1e15, 1e-3f64..1e7), 1..60), size in 0.0f64..2e19,
        ) {
            let points: Vec<Point> =
                values.iter().map(|(size, value, seconds)| Point { size: *size, value: *value, seconds: *seconds }).collect();
            for estimate in [Some(Estimate::constant(&points)), Estimate::linear(&points)].into_iter().flatten() {
                let (first, second) = estimate.memory(size, points.len());
                prop_assert!(first.is_finite() && first >= LEAST_MEMORY && second >= 2.0 * first);
                for index in 1..PROBABILITIES.len() {
                    prop_assert!(estimate.at(index, size) >= estimate.at(index - 1, size));
                }
            }
        }
    }
}
