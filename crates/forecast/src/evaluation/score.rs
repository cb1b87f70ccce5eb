//! What sizing cost.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::evaluation::run::Run;

/// Bytes · milliseconds in a GB·h.
const GB_HOUR: f64 = 1e9 * 3.6e6;

/// What sizing cost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Score {
    wasted: f64,
    used: f64,
    failed_attempts: u64,
    tasks: u64,
}

/// A score as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shown {
    /// Memory · time that was held and not needed, and all of failed attempts, in GB·h.
    pub waste_gbh: f64,
    /// Attempts that were killed.
    pub failed_attempts: u64,
    /// Runs.
    pub tasks: u64,
    /// Memory · time that was needed, in GB·h.
    pub used_gbh: f64,
    /// The memory allocation quality, used / (used + wasted).
    pub maq: f64,
}

/// Scores of one sizer: of all runs, and of each kind.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scores {
    /// Of all runs.
    pub total: Score,
    /// Of each kind.
    pub kinds: BTreeMap<String, Score>,
}

impl Score {
    /// Runs a task with these allocations, one after the other, and adds what that cost.
    pub fn add(&mut self, run: &Run, ladder: &[f64]) {
        self.tasks += 1;
        self.used += run.needed * run.time;
        let mut last = 0.0;
        for allocated in ladder.iter().map(|rung| rung.min(run.preset)).chain([run.preset]) {
            // A rung that is not higher is no other attempt.
            if allocated <= last {
                continue;
            }
            last = allocated;
            if allocated >= run.needed || allocated >= run.preset {
                self.wasted += (allocated - run.needed).max(0.0) * run.time;
                return;
            }
            self.wasted += allocated * run.time;
            self.failed_attempts += 1;
        }
    }

    /// As it is shown.
    pub fn shown(&self) -> Shown {
        let held = self.used + self.wasted;
        Shown {
            waste_gbh: self.wasted / GB_HOUR,
            failed_attempts: self.failed_attempts,
            tasks: self.tasks,
            used_gbh: self.used / GB_HOUR,
            maq: if held > 0.0 { self.used / held } else { 1.0 },
        }
    }
}

impl Scores {
    /// Runs a task with these allocations and adds what that cost.
    pub fn add(&mut self, run: &Run, ladder: &[f64]) {
        self.total.add(run, ladder);
        match self.kinds.get_mut(&run.kind) {
            Some(score) => score.add(run, ladder),
            None => self.kinds.entry(run.kind.clone()).or_default().add(run, ladder),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run {
            kind: "k".to_owned(),
            input: 1.0,
            preset: 10e9,
            start: 0.0,
            end: 1.0,
            needed: 3e9,
            time: 3.6e6,
            cpu_millis: 0.0,
            io_bytes: 0.0,
        }
    }

    #[test]
    fn a_success_wastes_what_was_not_needed_and_a_failure_all_of_it() {
        for (ladder, waste, failed) in [
            (&[4e9][..], 1.0, 0),
            (&[2e9, 5e9], 2.0 + 2.0, 1),
            // The same again is no attempt, and after the last the preset is given.
            (&[1e9, 1e9, 2e9], 1.0 + 2.0 + 7.0, 2),
            (&[], 7.0, 0),
            (&[99e9], 7.0, 0),
            (&[f64::NAN, -1.0], 7.0, 0),
        ] {
            let mut score = Score::default();
            score.add(&run(), ladder);
            let shown = score.shown();
            assert!((shown.waste_gbh - waste).abs() < 1e-9, "{ladder:?}: {shown:?}");
            assert_eq!((shown.failed_attempts, shown.tasks), (failed, 1), "{ladder:?}");
            assert!((shown.maq - 3.0 / (3.0 + waste)).abs() < 1e-9);
        }
    }
}
