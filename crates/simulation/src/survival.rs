//! How many faults of each kind were made, and how many of them were survived.

use std::collections::BTreeMap;
use std::fmt;

/// The counts of many runs, by kind of fault.
#[derive(Debug, Clone)]
pub struct Survival<F> {
    counts: BTreeMap<F, Counts>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    injected: u64,
    survived: u64,
}

impl<F> Default for Survival<F> {
    fn default() -> Self {
        Self { counts: BTreeMap::new() }
    }
}

impl<F: Copy + Ord> Survival<F> {
    /// Adds a run with so many faults of each kind, all of them survived or none.
    pub fn add(&mut self, faults: &BTreeMap<F, u64>, survived: bool) {
        for (fault, count) in faults {
            let counts = self.counts.entry(*fault).or_default();
            counts.injected += count;
            counts.survived += if survived { *count } else { 0 };
        }
    }
}

/// A line for each kind.
impl<F: fmt::Display> fmt::Display for Survival<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<44} {:>8} {:>8}", "fault", "injected", "survived")?;
        self.counts.iter().try_for_each(|(fault, Counts { injected, survived })| {
            write!(f, "\n{:<44} {injected:>8} {survived:>8}", fault.to_string())
        })
    }
}
