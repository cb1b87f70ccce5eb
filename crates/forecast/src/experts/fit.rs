//! What residuals say, as of the last time that somebody looked: made anew every sixteenth of a history, so that learning
//! takes amortised constant time.

use super::options::ExpertOptions;
use super::plan::{Plan, plan};
use super::residuals::{Point, Residual, distribution};

/// A distribution of residuals, with what a plan needs beside it.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    points: Vec<Point>,
    /// How long runs take, in the mean.
    time: f64,
    /// What is needed of a guess, in the mean over time.
    needed: f64,
}

impl Fit {
    /// Of at least one residual; `time` is how long runs take.
    pub(super) fn of(residuals: &[Residual], time: f64, options: &ExpertOptions) -> Self {
        let all: f64 = residuals.iter().map(|residual| residual.time).sum();
        let needed = residuals.iter().map(|residual| residual.time * residual.value.exp()).sum::<f64>() / all;
        Self { points: distribution(residuals, options), time, needed }
    }

    /// The best ladder for a guess, and what it wastes.
    pub(super) fn plan(&self, guess: f64, cap: f64, kill: impl Fn(f64) -> f64) -> Plan {
        let mut plan = plan(&self.points, guess, cap, self.time, kill);
        // What is needed costs as much whichever the ladder.
        plan.cost -= guess * self.needed * self.time;
        plan
    }

    /// What is needed of a guess with this probability, as a part of it.
    pub(super) fn quantile(&self, probability: f64) -> f64 {
        let above = self.points.partition_point(|point| point.of_runs < probability);
        let residual = match (above.checked_sub(1).and_then(|below| self.points.get(below)), self.points.get(above)) {
            (Some(below), Some(above)) => {
                let part = (probability - below.of_runs) / (above.of_runs - below.of_runs);
                below.at + part * (above.at - below.at)
            }
            (Some(point), None) | (None, Some(point)) => point.at,
            (None, None) => 0.0,
        };
        residual.exp()
    }
}
