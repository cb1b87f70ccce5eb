//! What a unit is sized with, and what comes of it.

/// Probabilities of the quantiles of need.
pub const PROBABILITIES: [f64; 4] = [0.5, 0.9, 0.95, 0.99];

/// What its owner said of a unit's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// What it is given while nothing better is known.
    pub declared: f64,
    /// The most that it is ever given; `None` if nobody said.
    pub most: Option<f64>,
}

/// What a ladder is planned by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Terms {
    /// By this the delay that a kill causes is priced.
    pub(super) declared: f64,
    /// Where the ladder ends.
    pub(super) cap: f64,
}

/// The memory of the first attempt and of those that follow kills.
#[derive(Debug, Clone, PartialEq)]
pub struct Sized {
    /// Who said so.
    pub by: &'static str,
    /// Bytes, strictly rising; the last is the cap.
    pub rungs: Vec<f64>,
    /// The probability that the first is enough, before any margin.
    pub covers: f64,
    /// What is needed with these [`PROBABILITIES`], in bytes.
    pub quantiles: [f64; 4],
}

impl Sized {
    /// The same at all probabilities; to be raised.
    pub(super) fn flat(by: &'static str, memory: f64, covers: f64) -> Self {
        Self { by, rungs: vec![memory], covers, quantiles: [memory; 4] }
    }

    /// No rung is below this, and the last is the cap.
    pub(super) fn raise(&mut self, least: f64, cap: f64) {
        let first = self.rungs.first().copied().unwrap_or(cap).max(least);
        self.rungs.retain(|rung| *rung > first && *rung < cap);
        if first < cap {
            self.rungs.insert(0, first);
        }
        self.rungs.push(cap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_drops_what_is_too_low_and_ends_at_the_cap() {
        let raised = |least: f64| {
            let mut sized = Sized { rungs: vec![1.0, 4.0, 10.0], ..Sized::flat("a", 1.0, 0.5) };
            sized.raise(least, 10.0);
            sized.rungs
        };
        assert_eq!(raised(0.0), [1.0, 4.0, 10.0]);
        assert_eq!(raised(2.0), [2.0, 4.0, 10.0]);
        assert_eq!(raised(4.0), [4.0, 10.0]);
        assert_eq!(raised(99.0), [10.0]);
    }
}
