//! In which order runs are sized and learnt.

use crate::evaluation::run::Run;
use crate::evaluation::score::Scores;
use crate::evaluation::sizer::Sizer;

/// As they happened: runs are sized when they start, and learnt once they have ended. History comes before all of it, in
/// the order in which it ended.
pub fn replay(sizer: &mut dyn Sizer, history: &[Run], runs: &[Run]) -> Scores {
    for run in in_order(history, |run| run.end) {
        sizer.learn(run);
    }
    let mut ended = in_order(runs, |run| run.end).into_iter().peekable();
    let mut scores = Scores::default();
    for run in in_order(runs, |run| run.start) {
        while let Some(other) = ended.next_if(|other| other.end <= run.start) {
            sizer.learn(other);
        }
        scores.add(run, &sizer.ladder(run));
    }
    scores
}

/// One after the other: each is learnt before the next is sized.
pub fn split(sizer: &mut dyn Sizer, history: &[Run], runs: &[Run]) -> Scores {
    for run in history {
        sizer.learn(run);
    }
    let mut scores = Scores::default();
    for run in runs {
        scores.add(run, &sizer.ladder(run));
        sizer.learn(run);
    }
    scores
}

/// Sorted; of equals the first stays first.
fn in_order(runs: &[Run], by: impl Fn(&Run) -> f64) -> Vec<&Run> {
    let mut sorted: Vec<&Run> = runs.iter().collect();
    sorted.sort_by(|a, b| by(a).total_cmp(&by(b)));
    sorted
}
