//! Online statistics of one unit: a ring of its last runs, and estimates from them.
//!
//! Whether the memory depends on the input's size is settled by what each answer would have wasted: before a run is
//! learnt, both estimates are asked about it, and what they would have wasted on it is added to their account (the
//! *prequential* principle: Dawid, "Statistical theory: the prequential approach", JRSS A 147, 1984). Accounts fade,
//! so that a unit that changes is believed.
//!
//! A kill for memory is a censored observation: the need is somewhere above the limit. Until a success on the same
//! input settles it, it counts as a run that needs the next rung, and nothing with as much input or more is given less
//! than that rung, unless several successes since contradict it.

use std::collections::VecDeque;
use std::time::Duration;

use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, Reservation, ResourceVector};

use crate::declared::{Declared, DeclaredForecaster};
use crate::estimate::{Estimate, PROBABILITIES, Point, imputed, margin, quantile, waste};
use crate::features::{Features, Source};
use crate::forecast::{Forecast, Need, NeedQuantile};
use crate::observation::{LARGEST_MEMORY, Sample};

/// How much an account of waste keeps with each run.
const FADING: f64 = 0.97;

/// Successes within its limit after which a kill for memory is taken for an exception.
const CONTRADICTIONS: u8 = 8;

/// Successes after which a history without a slope is believed for inputs of any size.
const ENOUGH: usize = 8;

/// The least CPU reserved, in thousandths of a core.
const LEAST_CPU: f64 = 50.0;

/// CPU above what was measured. A run that is held back by its limit is measured at that limit: with headroom the
/// reservation grows from run to run until the limit no longer binds.
const CPU_HEADROOM: f64 = 1.15;

/// Index of the median, the 90th and the 95th percentile in [`PROBABILITIES`].
const P90: usize = 1;
const P95: usize = 2;

/// Estimates from the samples as they were when it was fitted.
#[derive(Debug, Clone)]
struct Fit {
    constant: Estimate,
    linear: Option<Estimate>,
    duration: Estimate,
    cpu_millis: [f64; 4],
    io_bytes_per_second: [f64; 4],
    successes: usize,
    smallest_input: u64,
    largest_input: u64,
}

/// The online statistics of one unit.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    samples: VecDeque<Sample>,
    censored: usize,
    fit: Option<Fit>,
    since_fit: usize,
    /// Faded waste of the size-independent and of the linear estimate, in byte·seconds.
    wasted: (f64, f64),
    /// When it last learnt, in the forecaster's count of observations.
    pub(crate) last_used: u64,
}

impl Profile {
    /// Samples held.
    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    /// Learns from a run; `window` is the most samples held. Amortised constant time: at most `window` steps for
    /// each fit, and a fit only every sixteenth of the history or when something is out of line with it.
    pub(crate) fn learn(&mut self, sample: Sample, window: usize) {
        let surprising = sample.censored || self.settle_accounts(&sample);
        if self.censored > 0 {
            self.review_kills(&sample);
        }
        while self.samples.len() >= window.max(1) {
            let gone = self.samples.pop_front();
            self.censored -= usize::from(gone.is_some_and(|s| s.censored));
        }
        self.samples.push_back(sample);
        self.censored += usize::from(sample.censored);
        self.since_fit += 1;
        if surprising || self.fit.is_none() || self.since_fit > self.samples.len() / 16 {
            self.refit();
        }
    }

    /// Adds to the accounts what each estimate would have wasted on this success. True if the estimate in force was
    /// too low for it.
    fn settle_accounts(&mut self, sample: &Sample) -> bool {
        let Some(fit) = &self.fit else { return true };
        let size = sample.input_bytes as f64;
        let needed = sample.memory as f64;
        let cost = |estimate: &Estimate| {
            let (first, second) = estimate.memory(size, fit.successes);
            waste(first, second, needed, sample.seconds)
        };
        let too_low = self.estimate(fit).memory(size, fit.successes).0 < needed;
        let (constant, linear) = (cost(&fit.constant), cost(fit.linear.as_ref().unwrap_or(&fit.constant)));
        self.wasted = (self.wasted.0 * FADING + constant, self.wasted.1 * FADING + linear);
        too_low
    }

    /// Lets this sample settle or contradict earlier kills.
    fn review_kills(&mut self, sample: &Sample) {
        self.samples.retain(|kill| !(kill.censored && kill.same_input(sample) && kill.memory < sample.memory));
        let mut censored = 0;
        for kill in self.samples.iter_mut().filter(|kill| kill.censored) {
            censored += 1;
            if !sample.censored && sample.input_bytes >= kill.input_bytes && sample.memory <= kill.memory {
                kill.contradictions = kill.contradictions.saturating_add(1);
            }
        }
        self.censored = censored;
    }

    fn refit(&mut self) {
        self.since_fit = 0;
        let successes: Vec<&Sample> = self.samples.iter().filter(|s| !s.censored).collect();
        if successes.is_empty() {
            self.fit = None;
            return;
        }
        let memory: Vec<Point> = self
            .samples
            .iter()
            .map(|s| Point {
                size: s.input_bytes as f64,
                value: if s.censored { imputed(s.memory) } else { s.memory as f64 },
                seconds: s.seconds.max(1e-3),
            })
            .collect();
        let duration: Vec<Point> =
            successes.iter().map(|s| Point { size: s.input_bytes as f64, value: s.seconds, seconds: 1.0 }).collect();
        let quantiles = |of: fn(&Sample) -> f64| {
            let mut sorted: Vec<f64> = successes.iter().map(|s| of(s)).collect();
            sorted.sort_by(f64::total_cmp);
            PROBABILITIES.map(|p| quantile(&sorted, p))
        };
        self.fit = Some(Fit {
            constant: Estimate::constant(&memory),
            linear: Estimate::linear(&memory),
            duration: Estimate::nearest(&duration),
            cpu_millis: quantiles(|s| s.cpu_millis),
            io_bytes_per_second: quantiles(|s| s.io_bytes_per_second),
            successes: successes.len(),
            smallest_input: successes.iter().map(|s| s.input_bytes).min().unwrap_or(0),
            largest_input: successes.iter().map(|s| s.input_bytes).max().unwrap_or(0),
        });
    }

    /// The estimate of memory in force: the one that wasted less.
    fn estimate<'a>(&self, fit: &'a Fit) -> &'a Estimate {
        match &fit.linear {
            Some(linear) if self.wasted.1 < self.wasted.0 => linear,
            _ => &fit.constant,
        }
    }

    /// The least that a shard with this much input must get after kills for memory that nothing settled.
    fn floor(&self, input_bytes: u64) -> f64 {
        if self.censored == 0 {
            return 0.0;
        }
        self.samples
            .iter()
            .filter(|s| s.censored && s.input_bytes <= input_bytes && s.contradictions < CONTRADICTIONS)
            .map(|s| imputed(s.memory))
            .fold(0.0, f64::max)
    }

    /// What history says of this shard; `None` if there is no success, and no kill that concerns it.
    pub(crate) fn forecast(
        &self,
        features: &Features,
        declared: &Declared,
        fallback: &DeclaredForecaster,
    ) -> Option<Forecast> {
        let floor = self.floor(features.input_bytes);
        let said = fallback.reservation(declared);
        let Some(fit) = &self.fit else {
            // Nobody succeeded yet: all that is known is that the declared memory may be too little.
            if floor <= 0.0 {
                return None;
            }
            let memory = said.vector.memory.max(Bytes::from_f64(floor));
            let reservation =
                Reservation::new(declared.clamp(&ResourceVector { memory, ..said.vector }), said.duration);
            return Some(DeclaredForecaster::of_reservation(
                Source::Profile,
                "profile-1/kills".to_owned(),
                reservation,
                declared,
            ));
        };
        let size = features.input_bytes as f64;
        let estimate = self.estimate(fit);
        let (mut first, second) = estimate.memory(size, fit.successes);
        if !estimate.is_linear() && fit.is_new_to(features.input_bytes) {
            // Nothing is known of inputs as large as this. In proportion at worst, but no more than was declared.
            let in_proportion = first * (size / fit.largest_input.max(1) as f64);
            first = first.max(in_proportion.min(said.vector.memory.0 as f64));
        }
        let first = first.max(floor).min(LARGEST_MEMORY as f64);

        let cpu = (fit.cpu_millis[P90] * CPU_HEADROOM).max(LEAST_CPU);
        // I/O is reserved only where its owner declared some: most workers offer none of it.
        let io = if said.vector.io.0 == 0 { 0.0 } else { fit.io_bytes_per_second[P90] };
        let vector = ResourceVector {
            cpu: CpuMillis::from_f64(cpu),
            memory: Bytes::from_f64(first),
            io: BytesPerSecond::from_f64(io),
            // Scratch disk and named resources are as declared: nobody measures what would have been enough.
            ..said.vector
        };
        let duration = seconds(fit.duration.at(P95, size) * (1.0 + margin(fit.successes)));
        let kind = if estimate.is_linear() { "linear" } else { "constant" };
        Some(Forecast::new(
            Source::Profile,
            format!("profile-1/{kind}/{}", fit.successes),
            fit.need(estimate, size),
            estimate.coverage(),
            Reservation::new(vector, duration),
            Bytes::from_f64(second),
            declared,
        ))
    }
}

impl Fit {
    fn need(&self, estimate: &Estimate, size: f64) -> Need {
        let quantiles = PROBABILITIES.iter().enumerate().map(|(index, probability)| NeedQuantile {
            probability: *probability,
            cpu_millis: self.cpu_millis[index],
            memory_bytes: estimate.at(index, size),
            io_bytes_per_second: self.io_bytes_per_second[index],
            duration: seconds(self.duration.at(index, size)),
        });
        Need::new(quantiles.collect())
    }

    /// True if this is more than twice the largest input seen and history is too short, or its inputs too much
    /// alike, to tell whether the size matters.
    fn is_new_to(&self, input_bytes: u64) -> bool {
        let alike = self.successes < ENOUGH || self.largest_input < self.smallest_input.saturating_mul(2).max(1);
        alike && input_bytes > self.largest_input.saturating_mul(2)
    }
}

/// A duration of so many seconds, at most a century.
fn seconds(value: f64) -> Duration {
    const CENTURY: f64 = 100.0 * 365.25 * 86_400.0;
    Duration::try_from_secs_f64(value.clamp(0.0, CENTURY)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_estimate_wasted_long_ago_is_forgotten() {
        let mut profile = Profile { wasted: (0.0, 1e15), ..Profile::default() };
        for run in 0..600_u64 {
            let input = (1 + run * 37 % 101) << 20;
            let sample = Sample {
                input_bytes: input,
                memory: 10 * input,
                cpu_millis: 100.0,
                io_bytes_per_second: 0.0,
                seconds: 1.0,
                input_items: 1,
                censored: false,
                contradictions: 0,
            };
            profile.learn(sample, 256);
        }
        let fit = profile.fit.clone().unwrap();
        assert!(profile.estimate(&fit).is_linear());
    }
}
