//! What is not memory (duration, CPU, I/O): the same guesses, the nearest one in force, and quantiles that keep what they
//! say.
//!
//! An expert's account is the mean of what its guesses were off by, |ln(y/ŷ)|, faded. Quantiles are those of the residuals
//! ln(y/ŷ) of the one in force. The upper ones answer to how often they were exceeded (adaptive conformal inference: Gibbs
//! and Candès, NeurIPS 2021): too often, and the next ones are taken from further up.

use std::collections::VecDeque;

use super::history::{History, Seen, push};
use super::predictors::{COUNT, MEAN, guess, guesses, residuals};
use super::sized::PROBABILITIES;

/// Runs remembered.
const WINDOW: usize = 128;

/// How much an account keeps with each run.
const FADING: f64 = 0.95;

/// Runs below which accounts say nothing.
const ENOUGH: usize = 3;

/// What is added to the largest residual of n runs, divided by n: what so few have not shown.
const UNSEEN: f64 = 0.5;

/// By how much a level moves when it is exceeded.
const ANSWER: f64 = 0.01;

/// How far a level moves from its probability, in parts of what is beyond it.
const FURTHEST: f64 = 3.0;

/// One quantity of one unit. Values are positive, in any unit.
#[derive(Debug, Clone)]
pub struct Target {
    history: History,
    off: VecDeque<[f32; COUNT]>,
    errors: [f64; COUNT],
    /// Where in the residuals the quantiles are taken.
    levels: [f64; 4],
    in_force: usize,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            history: History::default(),
            off: VecDeque::new(),
            errors: [0.0; COUNT],
            levels: PROBABILITIES,
            in_force: MEAN,
        }
    }
}

impl Target {
    /// The values at [`PROBABILITIES`] for an input of this size; `None` if nothing was learnt.
    pub fn quantiles(&self, size: f64) -> Option<[f64; 4]> {
        if self.history.len() == 0 {
            return None;
        }
        Some(self.around(guess(&self.history, size, self.in_force)))
    }

    /// A run with an input of this size had this value. What cannot be true is left out.
    pub fn learn(&mut self, size: f64, value: f64) {
        if !(size.is_finite() && size >= 0.0 && value.is_finite() && value > 0.0) {
            return;
        }
        if self.history.len() > 0 {
            let guesses = guesses(&self.history, size);
            if self.off.len() >= ENOUGH {
                self.judge(value, &self.around(guesses[self.in_force]));
            }
            let residuals = residuals(&guesses, value);
            for (error, residual) in self.errors.iter_mut().zip(residuals) {
                *error = *error * FADING + f64::from(residual.abs());
            }
            push(&mut self.off, residuals, WINDOW);
            if self.off.len() >= ENOUGH {
                let nearest = (0..COUNT).min_by(|a, b| self.errors[*a].total_cmp(&self.errors[*b]));
                self.in_force = nearest.unwrap_or(MEAN);
            }
        }
        self.history.push(Seen::new(size, value), WINDOW);
    }

    fn judge(&mut self, value: f64, quantiles: &[f64; 4]) {
        for (place, probability) in PROBABILITIES.into_iter().enumerate().skip(1) {
            let exceeded = f64::from(u8::from(value > quantiles[place]));
            let reach = FURTHEST * (1.0 - probability);
            let level = self.levels[place] + ANSWER * (exceeded - (1.0 - probability));
            self.levels[place] = level.clamp(probability - reach, probability + reach);
        }
    }

    /// The quantiles above and below a guess of the expert in force.
    fn around(&self, guess: f64) -> [f64; 4] {
        let mut residuals: Vec<f32> = self.off.iter().map(|off| off[self.in_force]).collect();
        residuals.sort_by(f32::total_cmp);
        let n = residuals.len();
        let mut least = 0.0_f64;
        self.levels.map(|level| {
            let rank = level * (n as f64 + 1.0);
            // The ⌈level·(n+1)⌉-th smallest; beyond the largest, that and what so few have not shown.
            let residual = match (0..n).find(|place| *place as f64 + 1.0 >= rank) {
                Some(place) => f64::from(residuals[place]),
                None => residuals.last().copied().map_or(0.0, f64::from).max(0.0) + UNSEEN / (n as f64 + 1.0),
            };
            least = least.max(guess * residual.exp());
            least
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_follows_the_input_is_guessed_from_it() {
        let mut target = Target::default();
        (1..40).for_each(|n| target.learn(f64::from(n * 7 % 40), 1.0 + f64::from(n * 7 % 40)));
        let [median, most, ..] = target.quantiles(20.0).unwrap();
        assert!((median - 21.0).abs() < 0.1 && (21.0..25.0).contains(&most), "{median} {most}");
    }

    #[test]
    fn quantiles_cover_what_they_say_through_a_change() {
        let (mut target, mut state) = (Target::default(), 7_u64);
        let mut covered = [0_u32; 4];
        for run in 0..4_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let draw = (state >> 33) as f64 / f64::from(1_u32 << 31);
            let level = if run < 2_000 { 10.0 } else { 25.0 };
            let (size, value) = (f64::from(run % 17), level * (1.0 + draw));
            if let Some(quantiles) = target.quantiles(size) {
                covered.iter_mut().zip(quantiles).for_each(|(count, quantile)| *count += u32::from(value <= quantile));
            }
            target.learn(size, value);
        }
        for (count, probability) in covered.into_iter().zip(PROBABILITIES) {
            let part = f64::from(count) / 3_999.0;
            assert!((part - probability).abs() < 0.03, "{part} for {probability}");
        }
    }

    proptest! {
        #[test]
        fn quantiles_are_finite_and_rise(
            runs in proptest::collection::vec((0.0f64..1e18, 1e-3f64..1e15), 1..60), size in 0.0f64..1e19,
        ) {
            let mut target = Target::default();
            for (size, value) in &runs {
                target.learn(*size, *value);
            }
            let quantiles = target.quantiles(size).unwrap();
            prop_assert!(quantiles.is_sorted() && quantiles.iter().all(|value| value.is_finite() && *value > 0.0));
        }
    }
}
