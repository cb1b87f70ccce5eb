//! Sizers from the literature. Each learns from the runs of one kind alone, gives the preset while it knows too little,
//! and the preset after a failure, unless it says otherwise here.
//!
//! - [`Preset`]: what the owner gave.
//! - [`Largest`]: 1.1 × the largest need so far.
//! - [`Percentile`]: the 95th percentile of needs, between two by linear interpolation; from five runs on.
//! - [`LargestResidual`]: a line through the input's size by least squares plus its largest residual, at least half of the
//!   smallest need; from five runs of different sizes on (Witt, Wagner and Leser, HPCS 2019, with the maximum as offset).
//! - [`Ponder`]: Lehmann, Bader, de Mecquenem, Wang, Bountris, Friederici, Leser and Thamsen, "Ponder: online prediction
//!   of task memory requirements for scientific workflows", e-Science 2024.
//! - [`Tovar`]: the first allocation with the least expected waste where a failure is followed by the largest need so far,
//!   and only then by the preset (Tovar, da Silva, Juve, Deelman, Allcock, Thain and Livny, IEEE TPDS 29(2), 2018).

use std::collections::HashMap;

use crate::evaluation::run::Run;
use crate::evaluation::sizer::Sizer;

const MIB: f64 = (1 << 20) as f64;

/// Runs below which a distribution or a line says nothing.
const ENOUGH: usize = 5;

/// A finished run of a kind.
#[derive(Debug, Clone, Copy)]
struct Seen {
    input: f64,
    needed: f64,
    time: f64,
}

/// A rule for the first attempt of one kind; `None` while it knows too little.
trait Rule {
    fn first(&self, seen: &[Seen], input: f64, preset: f64) -> Option<f64>;

    /// For the attempt after a failure, if that is not to be the preset at once.
    fn second(&self, _: &[Seen]) -> Option<f64> {
        None
    }
}

/// Runs by kind, and a rule.
#[derive(Debug, Default)]
struct ByKind<R> {
    rule: R,
    kinds: HashMap<String, Vec<Seen>>,
}

impl<R: Rule> Sizer for ByKind<R> {
    fn ladder(&mut self, run: &Run) -> Vec<f64> {
        let seen = self.kinds.get(&run.kind).map(Vec::as_slice).unwrap_or_default();
        let first = self.rule.first(seen, run.input, run.preset);
        first.into_iter().chain(first.and_then(|_| self.rule.second(seen))).collect()
    }

    fn learn(&mut self, run: &Run) {
        let seen = Seen { input: run.input, needed: run.needed, time: run.time };
        self.kinds.entry(run.kind.clone()).or_default().push(seen);
    }
}

/// The names of all of them, as they are shown.
pub const NAMES: [&str; 6] = ["preset", "max10", "p95", "linear_max", "ponder", "tovar"];

/// The one of this name.
pub fn named(name: &str) -> Option<Box<dyn Sizer>> {
    Some(match name {
        "preset" => Box::new(ByKind::<Preset>::default()),
        "max10" => Box::new(ByKind::<Largest>::default()),
        "p95" => Box::new(ByKind::<Percentile>::default()),
        "linear_max" => Box::new(ByKind::<LargestResidual>::default()),
        "ponder" => Box::new(ByKind::<Ponder>::default()),
        "tovar" => Box::new(ByKind::<Tovar>::default()),
        _ => return None,
    })
}

/// What the owner gave.
#[derive(Debug, Clone, Copy, Default)]
pub struct Preset;

impl Rule for Preset {
    fn first(&self, _: &[Seen], _: f64, preset: f64) -> Option<f64> {
        Some(preset)
    }
}

fn largest(seen: &[Seen], of: impl Fn(&Seen) -> f64) -> f64 {
    seen.iter().map(of).fold(f64::NEG_INFINITY, f64::max)
}

fn smallest(seen: &[Seen], of: impl Fn(&Seen) -> f64) -> f64 {
    seen.iter().map(of).fold(f64::INFINITY, f64::min)
}

/// 1.1 × the largest need so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Largest;

impl Rule for Largest {
    fn first(&self, seen: &[Seen], _: f64, _: f64) -> Option<f64> {
        (!seen.is_empty()).then(|| 1.1 * largest(seen, |run| run.needed))
    }
}

/// The 95th percentile of needs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Percentile;

impl Rule for Percentile {
    fn first(&self, seen: &[Seen], _: f64, _: f64) -> Option<f64> {
        if seen.len() < ENOUGH {
            return None;
        }
        let mut needs: Vec<f64> = seen.iter().map(|run| run.needed).collect();
        needs.sort_by(f64::total_cmp);
        // The rank 0.95 (n - 1), from zero, in whole numbers and hundredths.
        let rank = 95 * (needs.len() - 1);
        let (below, part) = (rank / 100, (rank % 100) as f64 / 100.0);
        let above = needs.get(below + 1).unwrap_or(&needs[below]);
        Some(needs[below] + part * (above - needs[below]))
    }
}

/// A line through the input's size.
#[derive(Debug, Clone, Copy)]
struct Line {
    input: f64,
    needed: f64,
    slope: f64,
}

impl Line {
    fn at(self, input: f64) -> f64 {
        self.needed + self.slope * (input - self.input)
    }
}

/// A line by weighted least squares; `None` if all sizes are the same.
fn line(seen: &[Seen], weight: impl Fn(usize) -> f64) -> Option<Line> {
    let weights: f64 = (0..seen.len()).map(&weight).sum();
    let mean =
        |of: fn(&Seen) -> f64| seen.iter().enumerate().map(|(n, run)| weight(n) * of(run)).sum::<f64>() / weights;
    let (input, needed) = (mean(|run| run.input), mean(|run| run.needed));
    let spread: f64 = seen.iter().enumerate().map(|(n, run)| weight(n) * (run.input - input).powi(2)).sum();
    let slope = seen.iter().enumerate().map(|(n, run)| weight(n) * (run.input - input) * (run.needed - needed));
    (spread > 0.0).then(|| Line { input, needed, slope: slope.sum::<f64>() / spread })
}

/// A line plus its largest residual.
#[derive(Debug, Clone, Copy, Default)]
pub struct LargestResidual;

impl Rule for LargestResidual {
    fn first(&self, seen: &[Seen], input: f64, _: f64) -> Option<f64> {
        if seen.len() < ENOUGH {
            return None;
        }
        let line = line(seen, |_| 1.0)?;
        let residual = largest(seen, |run| run.needed - line.at(run.input)).max(0.0);
        Some((line.at(input) + residual).max(smallest(seen, |run| run.needed) / 2.0))
    }
}

/// Ponder's rule.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ponder;

impl Ponder {
    /// Added to what is forecast, at least.
    const MARGIN: f64 = 128.0 * MIB;

    /// Up to this correlation the size of the input says nothing.
    const CORRELATED: f64 = 0.3;

    /// The weight of over-estimates in the asymmetric fit, beside 1 for the others.
    const OVER: f64 = 0.02;

    /// Rounds of the fit after which it is taken as it is.
    const ROUNDS: usize = 50;

    /// Least squares that mind over-estimates less: fitted again with the weights that the last fit gives, until these
    /// stay.
    fn fit(seen: &[Seen]) -> Option<Line> {
        let mut weights = vec![1.0; seen.len()];
        for _ in 0..Self::ROUNDS {
            let fitted = line(seen, |n| weights[n])?;
            let next: Vec<f64> =
                seen.iter().map(|run| if run.needed > fitted.at(run.input) { 1.0 } else { Self::OVER }).collect();
            if next == weights {
                break;
            }
            weights = next;
        }
        line(seen, |n| weights[n])
    }
}

fn correlation(seen: &[Seen]) -> f64 {
    let n = seen.len() as f64;
    let mean = |of: fn(&Seen) -> f64| seen.iter().map(of).sum::<f64>() / n;
    let (input, needed) = (mean(|run| run.input), mean(|run| run.needed));
    let sum = |of: &dyn Fn(&Seen) -> f64| seen.iter().map(of).sum::<f64>();
    let (xx, yy) = (sum(&|run| (run.input - input).powi(2)), sum(&|run| (run.needed - needed).powi(2)));
    let xy = sum(&|run| (run.input - input) * (run.needed - needed));
    if xx > 0.0 && yy > 0.0 { xy / (xx * yy).sqrt() } else { 0.0 }
}

impl Rule for Ponder {
    fn first(&self, seen: &[Seen], input: f64, _: f64) -> Option<f64> {
        let most = largest(seen, |run| run.needed);
        let (least_input, most_input) = (smallest(seen, |run| run.input), largest(seen, |run| run.input));
        if seen.len() < ENOUGH {
            return (most_input > input).then_some(most + Self::MARGIN);
        }
        if correlation(seen) <= Self::CORRELATED {
            return Some(most + Self::MARGIN);
        }
        let fit = Self::fit(seen)?;
        let bounded = fit.at(input).max(smallest(seen, |run| run.needed));
        let bounded = if input < most_input { bounded.min(most) } else { bounded.max(most) };
        // Weights fall with the distance in size.
        let weight = |run: &Seen| 1.0 / (1.0 + 10.0 * (run.input - input).abs() / (most_input - least_input));
        let weights: f64 = seen.iter().map(weight).sum();
        let mean = seen.iter().map(|run| weight(run) * (run.needed - fit.at(run.input))).sum::<f64>() / weights;
        let spread = seen.iter().map(|run| weight(run) * (run.needed - fit.at(run.input) - mean).powi(2)).sum::<f64>();
        Some(bounded + Self::MARGIN.max(2.0 * (spread / weights).sqrt()))
    }
}

/// The first allocation of least expected waste.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tovar;

impl Rule for Tovar {
    fn first(&self, seen: &[Seen], _: f64, _: f64) -> Option<f64> {
        let most = self.second(seen)?;
        let mut sorted: Vec<&Seen> = seen.iter().collect();
        sorted.sort_by(|a, b| a.needed.total_cmp(&b.needed));
        let all: f64 = sorted.iter().map(|run| run.time).sum();
        let (mut enough, mut best) = (0.0, (most * all, most));
        for run in sorted {
            enough += run.time;
            // What is held: the first allocation always, and the largest after it where that was not enough.
            let held = run.needed * all + most * (all - enough);
            if held < best.0 {
                best = (held, run.needed);
            }
        }
        Some(best.1)
    }

    fn second(&self, seen: &[Seen]) -> Option<f64> {
        (!seen.is_empty()).then(|| largest(seen, |run| run.needed))
    }
}
