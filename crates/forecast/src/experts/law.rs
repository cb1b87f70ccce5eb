//! Needs that follow a line through the size of the input closely: then it also tells of sizes that nobody has seen.
//!
//! What runs are off is by leaving each out in turn, which needs no second fit: of a run with the residual e and the leverage
//! h it is e / (1 - h) (Cook and Weisberg, "Residuals and influence in regression", 1982). Beyond the largest size the line is widened by
//! twice the standard error of its slope for every byte further (the textbook's confidence band of simple regression).

use super::fit::Fit;
use super::history::History;
use super::options::ExpertOptions;
use super::residuals::Residual;

/// Runs below which nothing is a law.
const ENOUGH: usize = 5;

/// How far any run may be off, as a logarithm.
const CLOSELY: f64 = 0.15;

/// How many times the smallest size the largest must be.
const WIDTH: f64 = 2.0;

/// How many times what the smallest input needs the largest must.
const RISE: f64 = 1.25;

/// A line that all runs keep to.
#[derive(Debug, Clone)]
pub(super) struct Law {
    intercept: f64,
    slope: f64,
    slope_error: f64,
    smallest: f64,
    largest: f64,
    pub(super) fit: Fit,
}

impl Law {
    /// `None` if some run does not keep to it, or too few are known. `time` is how long runs take.
    pub(super) fn of(history: &History, time: f64, options: &ExpertOptions) -> Option<Self> {
        let n = history.len() as f64;
        let (smallest, largest) = (history.smallest(|s| s.size), history.largest(|s| s.size));
        if history.len() < ENOUGH || largest < WIDTH * smallest.max(1.0) {
            return None;
        }
        let (x, y) = (history.mean(|s| s.size), history.mean(|s| s.need));
        let (mut xx, mut xy) = (0.0, 0.0);
        for seen in history.iter() {
            xx += (seen.size - x).powi(2);
            xy += (seen.size - x) * (seen.need - y);
        }
        let slope = xy / xx;
        if !(slope.is_finite() && slope > 0.0) {
            return None;
        }
        let intercept = y - slope * x;
        if intercept + slope * largest < RISE * (intercept + slope * smallest) {
            return None;
        }
        let mut squares = 0.0;
        let mut residuals = Vec::with_capacity(history.len());
        for seen in history.iter() {
            let off = seen.need - intercept - slope * seen.size;
            let leverage = 1.0 / n + (seen.size - x).powi(2) / xx;
            let value = seen.log_need - (seen.need - off / (1.0 - leverage)).ln();
            if value.is_nan() || value.abs() > CLOSELY {
                return None;
            }
            squares += off * off;
            residuals.push(Residual { value, time });
        }
        let slope_error = (squares / (n - 2.0) / xx).sqrt();
        Some(Self { intercept, slope, slope_error, smallest, largest, fit: Fit::of(&residuals, time, options) })
    }

    /// What is needed; below the smallest size what is needed there.
    pub(super) fn at(&self, size: f64) -> f64 {
        let beyond = (size - self.largest).max(0.0);
        (self.intercept + self.slope * size.max(self.smallest) + 2.0 * self.slope_error * beyond).max(1.0)
    }

    /// True if a run keeps to it.
    pub(super) fn holds(&self, size: f64, need: f64) -> bool {
        (need / self.at(size)).ln().abs() <= CLOSELY
    }

    /// True of a size that is larger than all that were seen.
    pub(super) fn is_beyond(&self, size: f64) -> bool {
        size > self.largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experts::history::Seen;

    fn law(runs: &[(f64, f64)]) -> Option<Law> {
        let mut history = History::default();
        for (size, need) in runs {
            history.push(Seen::new(*size, *need), 300);
        }
        Law::of(&history, 1000.0, &ExpertOptions::default())
    }

    #[test]
    fn a_line_that_all_keep_to_is_a_law_and_others_are_none() {
        let exact = law(&[(10.0, 120.0), (20.0, 220.0), (30.0, 320.0), (40.0, 420.0), (50.0, 520.0)]).unwrap();
        assert!((exact.at(500.0) - 5020.0).abs() < 1e-6 && (exact.at(1.0) - 120.0).abs() < 1e-6);
        assert!(exact.holds(100.0, 1100.0) && !exact.holds(100.0, 1300.0));
        assert!(exact.is_beyond(51.0) && !exact.is_beyond(50.0));
        let noisy = law(&[(10.0, 120.0), (20.0, 230.0), (30.0, 310.0), (40.0, 430.0), (50.0, 510.0)]).unwrap();
        assert!(noisy.at(500.0) > noisy.intercept + noisy.slope * 500.0, "wider than the bare line");
        assert!(law(&[(10.0, 120.0), (20.0, 220.0), (30.0, 320.0), (40.0, 420.0)]).is_none(), "too few");
        assert!(
            law(&[(10.0, 120.0), (20.0, 220.0), (30.0, 600.0), (40.0, 420.0), (50.0, 520.0)]).is_none(),
            "one is off"
        );
        assert!(law(&[(10.0, 520.0), (20.0, 420.0), (30.0, 320.0), (40.0, 220.0), (50.0, 120.0)]).is_none(), "falls");
        assert!(law(&[(10.0, 1.0); 9]).is_none(), "one size");
        let level = [(10.0, 100.0), (20.0, 101.0), (30.0, 102.0), (40.0, 103.0), (50.0, 104.0)];
        assert!(law(&level).is_none(), "hardly rises");
    }
}
