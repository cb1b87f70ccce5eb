//! The ladder: the first allocation and all that follow kills, as one decision.
//!
//! With candidates a₁ < a₂ < … and F(a) the part of time in runs that need no more than a, the cost of a ladder is, for each
//! of its rungs, what is held by those that it is enough for, (F(aᵢ) - F(aᵢ₋₁))·aᵢ·t, and by those that are killed,
//! (1 - F(aᵢ))·aᵢ·t, with what a kill costs beside its run, (1 - G(aᵢ))·k(aᵢ), G being the part of runs. What needs more than all of
//! them gets the cap. The best ladder from a rung on does not depend on how that was reached, so it is found from the
//! top down (dynamic programming), in the square of the number of candidates.

use super::residuals::Point;

/// A ladder, and what it is expected to cost in memory · time, with what is needed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) rungs: Vec<f64>,
    pub(super) cost: f64,
    /// The part of runs that the first rung is enough for.
    pub(super) covers: f64,
}

/// The ladder of least expected cost for a guess; `time` is how long such runs take, `kill` what a kill costs beside its
/// run. Without a rung that is worth it, the cap alone.
pub(super) fn plan(points: &[Point], guess: f64, cap: f64, time: f64, kill: impl Fn(f64) -> f64) -> Plan {
    let candidates: Vec<(f64, &Point)> =
        points.iter().map(|point| (guess * point.at.exp(), point)).take_while(|(memory, _)| *memory < cap).collect();
    let killed =
        |(memory, point): &(f64, &Point)| (1.0 - point.of_time) * memory * time + (1.0 - point.of_runs) * kill(*memory);
    let reached = |below: f64, (memory, point): &(f64, &Point)| (point.of_time - below) * memory * time;
    // From each candidate on: the least cost of what it is not enough for, and the next rung.
    let mut above: Vec<(f64, Option<usize>)> = vec![(0.0, None); candidates.len()];
    let best_from = |first: usize, below: f64, above: &[(f64, Option<usize>)]| {
        let mut best = ((1.0 - below) * cap * time, None);
        for next in first..candidates.len() {
            let candidate = &candidates[next];
            let cost = killed(candidate) + reached(below, candidate) + above[next].0;
            if cost < best.0 {
                best = (cost, Some(next));
            }
        }
        best
    };
    for rung in (0..candidates.len()).rev() {
        above[rung] = best_from(rung + 1, candidates[rung].1.of_time, &above);
    }
    let mut rungs = Vec::new();
    let (cost, mut next) = best_from(0, 0.0, &above);
    let covers = next.map_or(1.0, |rung| candidates[rung].1.of_runs);
    while let Some(rung) = next {
        rungs.push(candidates[rung].0);
        next = above[rung].1;
    }
    rungs.push(cap);
    Plan { rungs, cost, covers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cost(points: &[Point], rungs: &[usize], guess: f64, cap: f64, time: f64, overhead: f64) -> f64 {
        let (mut below, mut cost) = (0.0, 0.0);
        for rung in rungs {
            let (memory, point) = (guess * points[*rung].at.exp(), &points[*rung]);
            cost += (point.of_time - below) * memory * time;
            cost += (1.0 - point.of_time) * memory * time + (1.0 - point.of_runs) * memory * overhead;
            below = point.of_time;
        }
        cost + (1.0 - below) * cap * time
    }

    proptest! {
        /// Against all ladders there are.
        #[test]
        fn no_other_ladder_costs_less(
            drawn in proptest::collection::vec((0.01f64..0.5, 0.01f64..0.2, 0.01f64..0.2), 1..8),
            cap in 1.5f64..40.0, overhead in 0.0f64..3.0,
        ) {
            let (mut at, mut of_time, mut of_runs) = (-1.0, 0.0, 0.0);
            let points: Vec<Point> = drawn.iter().map(|(step, time, runs)| {
                at += step;
                of_time += time * (1.0 - of_time);
                of_runs += runs * (1.0 - of_runs);
                Point { at, of_time, of_runs }
            }).collect();
            let Plan { rungs: found, cost: expected, .. } = plan(&points, 10.0, cap, 1.0, |memory| memory * overhead);
            prop_assert!(found.is_sorted_by(|a, b| a < b) && found.last() == Some(&cap));
            let below: Vec<usize> = (0..points.len()).filter(|rung| 10.0 * points[*rung].at.exp() < cap).collect();
            let rungs: Vec<usize> = found[..found.len() - 1].iter().map(|memory| {
                below.iter().copied().find(|rung| (10.0 * points[*rung].at.exp() - memory).abs() < 1e-9).unwrap()
            }).collect();
            let chosen = cost(&points, &rungs, 10.0, cap, 1.0, overhead);
            prop_assert!((chosen - expected).abs() < 1e-9);
            for subset in 0..1u32 << below.len() {
                let other: Vec<usize> =
                    below.iter().enumerate().filter(|(bit, _)| subset & (1 << bit) != 0).map(|(_, rung)| *rung).collect();
                prop_assert!(chosen <= cost(&points, &other, 10.0, cap, 1.0, overhead) + 1e-9, "{:?} {:?}", rungs, other);
            }
        }
    }
}
