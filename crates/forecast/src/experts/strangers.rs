//! Units of which nothing is known but what was declared: what others needed of theirs.
//!
//! Owners declare generously, and much alike. If the units are exchangeable, the next one needs a larger part of what it
//! was declared than k others did with a probability of at most 1/(k + 1). Siblings that start before one has ended fail
//! together, so this is meant to hardly ever be too little.

use std::collections::HashMap;

/// Units below which the others say nothing.
const ENOUGH: usize = 4;

/// Above the largest part that any unit needed.
const MARGIN: f64 = 1.25;

/// The least part that a stranger gets.
const LEAST: f64 = 0.6;

/// The largest part of what was declared that each unit needed.
#[derive(Debug, Clone, Default)]
pub struct Strangers {
    parts: HashMap<String, f64>,
}

impl Strangers {
    /// Units that others are judged by.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// True before anything was learnt.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Forgets this unit.
    pub fn forget(&mut self, unit: &str) {
        self.parts.remove(unit);
    }

    /// A run of this unit needed so much of what was declared. What cannot be true is left out.
    pub fn learn(&mut self, unit: &str, need: f64, declared: f64) {
        let part = need / declared;
        if !(part.is_finite() && part > 0.0) {
            return;
        }
        match self.parts.get_mut(unit) {
            Some(most) => *most = most.max(part),
            None => {
                self.parts.insert(unit.to_owned(), part);
            }
        }
    }

    /// The memory of the attempts of a unit that nothing is known of; the last is what was declared.
    pub fn ladder(&self, declared: f64) -> Vec<f64> {
        let most = self.parts.values().fold(0.0_f64, |most, part| most.max(*part));
        let first = declared * (most * MARGIN).max(LEAST);
        if self.parts.len() >= ENOUGH && first < declared { vec![first, declared] } else { vec![declared] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_gets_what_was_declared_until_others_show_that_less_is_enough() {
        let mut strangers = Strangers::default();
        for (unit, need) in [("a", 1.0), ("a", 10.0), ("b", 20.0), ("c", 30.0)] {
            strangers.learn(unit, need, 100.0);
        }
        assert_eq!(strangers.ladder(50.0), [50.0], "too few units");
        strangers.learn("d", 10.0, 100.0);
        assert_eq!(strangers.ladder(50.0), [30.0, 50.0]);
        strangers.learn("b", 60.0, 100.0);
        assert_eq!(strangers.ladder(50.0), [37.5, 50.0]);
        for nonsense in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            strangers.learn("e", nonsense, 100.0);
            strangers.learn("e", 1.0, nonsense);
        }
        assert_eq!(strangers.ladder(50.0), [37.5, 50.0]);
        strangers.learn("f", 90.0, 100.0);
        assert_eq!(strangers.ladder(50.0), [50.0], "some need all of it");
    }
}
