//! The experts: guesses of a need from the size of the input.
//!
//! All but two work with logarithms: needs spread in proportion, and a mean of logarithms is a geometric mean.

use super::history::{History, Seen};

/// How many there are.
pub(super) const COUNT: usize = 9;

/// The one that takes the mean of all others: nobody is far off it, so it is in force until accounts tell.
pub(super) const MEAN: usize = 8;

/// Their names, in the versions of forecasts.
pub(super) const NAMES: [&str; COUNT] =
    ["level", "line", "log-line", "nearest", "nearest-3", "nearest-7", "largest-of-5", "local-line", "mean"];

/// Runs below which a line says nothing.
const ENOUGH_FOR_A_LINE: usize = 3;

/// Runs below which a local line says nothing.
const ENOUGH_FOR_A_LOCAL_LINE: usize = 5;

/// How far a line may lead beyond the largest need seen.
const FURTHEST: f64 = 4.0;

/// How far a line may lead below the smallest.
const LOWEST: f64 = 0.25;

/// Neighbours that are looked at.
const NEIGHBOURS: usize = 7;

/// Of local lines: a little of what keeps them level where all sizes are alike (ridge regression).
const RIDGE: f64 = 1e-3;

/// The guesses of all experts at this size; at least one byte. There is at least one run.
pub(super) fn guesses(history: &History, size: f64) -> [f64; COUNT] {
    let log_size = size.ln_1p();
    let bounds = Bounds::of(history);
    let nearest = Nearest::to(history, log_size);
    let mut guesses: [f64; COUNT] =
        std::array::from_fn(|expert| if expert == MEAN { 1.0 } else { one(expert, history, size, &bounds, &nearest) });
    guesses[MEAN] = (guesses[..MEAN].iter().map(|guess| guess.ln()).sum::<f64>() / MEAN as f64).exp();
    guesses
}

/// The guess of one expert, as [`guesses`] has it.
pub(super) fn guess(history: &History, size: f64, expert: usize) -> f64 {
    if expert == MEAN {
        return guesses(history, size)[MEAN];
    }
    let nearest = if (3..=6).contains(&expert) { Nearest::to(history, size.ln_1p()) } else { Nearest::none() };
    one(expert, history, size, &Bounds::of(history), &nearest)
}

/// Of a history.
struct Bounds {
    level: f64,
    most: f64,
    least: f64,
}

impl Bounds {
    fn of(history: &History) -> Self {
        Self {
            level: history.mean(|s| s.log_need).exp(),
            most: history.largest(|s| s.need),
            least: history.smallest(|s| s.need),
        }
    }
}

/// Of all but the mean.
fn one(expert: usize, history: &History, size: f64, bounds: &Bounds, nearest: &Nearest) -> f64 {
    let Bounds { level, most, least } = *bounds;
    let furthest = FURTHEST * most;
    let is_line = history.len() >= ENOUGH_FOR_A_LINE;
    let guess = match expert {
        1 if is_line => Line::through(history, |s| s.size, |s| s.need).at(size).max(LOWEST * least),
        2 if is_line => {
            let log_line = Line::through(history, |s| s.log_size, |s| s.log_need);
            log_line.at(size.ln_1p()).exp().min(furthest)
        }
        3 => nearest.geometric_mean(1),
        4 => nearest.geometric_mean(3),
        5 => nearest.geometric_mean(NEIGHBOURS),
        6 => nearest.largest(5),
        7 if history.len() >= ENOUGH_FOR_A_LOCAL_LINE => {
            local_line(history, size.ln_1p()).map_or(level, f64::exp).min(furthest)
        }
        _ => level,
    };
    if guess.is_finite() { guess.max(1.0) } else { most.max(1.0) }
}

/// What each guess is off by, ln(value / guess). Seven digits are enough to remember.
#[expect(clippy::cast_possible_truncation, reason = "logarithms of positive numbers are small")]
pub(super) fn residuals(guesses: &[f64; COUNT], value: f64) -> [f32; COUNT] {
    guesses.map(|guess| (value / guess).ln() as f32)
}

/// A line by least squares; level where all sizes are the same.
struct Line {
    x: f64,
    y: f64,
    slope: f64,
}

impl Line {
    fn through(history: &History, x: impl Fn(&Seen) -> f64, y: impl Fn(&Seen) -> f64) -> Self {
        let (mean_x, mean_y) = (history.mean(&x), history.mean(&y));
        let (mut xx, mut xy) = (0.0, 0.0);
        for seen in history.iter() {
            xx += (x(seen) - mean_x).powi(2);
            xy += (x(seen) - mean_x) * (y(seen) - mean_y);
        }
        Self { x: mean_x, y: mean_y, slope: if xx > 1e-12 { xy / xx } else { 0.0 } }
    }

    fn at(&self, x: f64) -> f64 {
        self.y + self.slope * (x - self.x)
    }
}

/// A line by least squares in which runs count less the further away their size is (a Gaussian kernel); its value at this
/// size. `None` if all sizes are the same.
fn local_line(history: &History, log_size: f64) -> Option<f64> {
    let mean = history.mean(|s| s.log_size);
    let spread = history.mean(|s| (s.log_size - mean).powi(2)).sqrt();
    if spread <= 1e-9 {
        return None;
    }
    let bandwidth = spread * (history.len() as f64).powf(-0.2);
    // Sums of distances from here, so that little is lost where the difference is taken.
    let (mut weights, mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for seen in history.iter() {
        let distance = seen.log_size - log_size;
        // Far from everything all runs count the same.
        let weight = (-0.5 * (distance / bandwidth).powi(2)).exp() + 1e-9;
        weights += weight;
        x += weight * distance;
        y += weight * seen.log_need;
        xx += weight * distance * distance;
        xy += weight * distance * seen.log_need;
    }
    let (x, y) = (x / weights, y / weights);
    let slope = (xy - weights * x * y) / ((xx - weights * x * x).max(0.0) + RIDGE * weights * spread * spread);
    Some(y - slope * x)
}

/// The runs whose sizes are nearest, the nearest first, of equals the newest.
struct Nearest {
    found: Vec<(f64, Seen)>,
}

impl Nearest {
    fn none() -> Self {
        Self { found: Vec::new() }
    }

    fn to(history: &History, log_size: f64) -> Self {
        let mut found: Vec<(f64, Seen)> = Vec::with_capacity(NEIGHBOURS + 1);
        for seen in history.iter().rev() {
            let distance = (seen.log_size - log_size).abs();
            if found.len() == NEIGHBOURS && found.last().is_some_and(|(last, _)| *last <= distance) {
                continue;
            }
            let place = found.partition_point(|(other, _)| *other <= distance);
            found.insert(place, (distance, *seen));
            found.truncate(NEIGHBOURS);
        }
        Self { found }
    }

    fn geometric_mean(&self, of: usize) -> f64 {
        let of = of.min(self.found.len()).max(1);
        (self.found.iter().take(of).map(|(_, seen)| seen.log_need).sum::<f64>() / of as f64).exp()
    }

    fn largest(&self, of: usize) -> f64 {
        self.found.iter().take(of).map(|(_, seen)| seen.need).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn history(runs: &[(f64, f64)]) -> History {
        let mut history = History::default();
        for (size, need) in runs {
            history.push(Seen::new(*size, *need), 300);
        }
        history
    }

    fn near(found: f64, expected: f64) -> bool {
        (found / expected - 1.0).abs() < 0.01
    }

    #[test]
    fn each_expert_is_right_where_its_idea_is() {
        // In proportion plus a constant: the line knows, at any distance.
        let linear = history(&[(10.0, 150.0), (20.0, 250.0), (30.0, 350.0), (50.0, 550.0)]);
        assert!(near(guesses(&linear, 40.0)[1], 450.0));
        // A power of the size: the line of logarithms knows.
        let power = history(&[1e6, 1e7, 1e8, 1e9].map(|size: f64| (size, size.sqrt())));
        assert!(near(guesses(&power, 3e7)[2], 3e7_f64.sqrt()));
        // Steps: the neighbours know.
        let steps = history(&[(1.0, 10.0), (1.1, 10.0), (1.2, 10.0), (9.0, 80.0), (9.1, 80.0), (9.2, 80.0)]);
        let [.., first, third, _, _, _, _] = guesses(&steps, 9.05);
        assert!(near(first, 80.0) && near(third, 80.0), "{first} {third}");
    }

    #[test]
    fn of_equal_sizes_the_newest_is_nearest_and_everybody_else_is_level() {
        let alike = history(&[(5.0, 10.0), (5.0, 20.0), (5.0, 40.0), (5.0, 20.0), (5.0, 30.0)]);
        let guesses = guesses(&alike, 5.0);
        assert!(near(guesses[3], 30.0));
        let level = (10.0_f64 * 20.0 * 40.0 * 20.0 * 30.0).powf(0.2);
        for expert in [0, 2, 7] {
            assert!(near(guesses[expert], level), "{expert}: {}", guesses[expert]);
        }
        assert!(near(guesses[1], 24.0) && near(guesses[6], 40.0));
    }

    proptest! {
        #[test]
        fn all_guesses_are_finite_and_at_least_a_byte(
            runs in proptest::collection::vec((0.0f64..1e18, 1.0f64..1e15), 1..40), size in 0.0f64..1e19,
        ) {
            for guess in guesses(&history(&runs), size) {
                prop_assert!(guess.is_finite() && guess >= 1.0, "{}", guess);
            }
        }
    }
}
