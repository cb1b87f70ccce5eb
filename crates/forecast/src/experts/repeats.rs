//! Inputs that come again: what a run needed on one of exactly the same size.

use std::collections::{HashMap, VecDeque};

/// The last sizes, each with what its newest run needed.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeats {
    needs: HashMap<u64, f64>,
    /// In the order in which they came first.
    order: VecDeque<u64>,
}

impl Repeats {
    /// What the newest run needed on an input of exactly this size. Zero says nothing of an input.
    pub(super) fn of(&self, size: f64) -> Option<f64> {
        if size > 0.0 { self.needs.get(&size.to_bits()).copied() } else { None }
    }

    pub(super) fn push(&mut self, size: f64, need: f64, most: usize) {
        if self.needs.insert(size.to_bits(), need).is_none() {
            self.order.push_back(size.to_bits());
            while self.order.len() > most.max(1) {
                if let Some(oldest) = self.order.pop_front() {
                    self.needs.remove(&oldest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_counts_and_the_oldest_size_goes() {
        let mut repeats = Repeats::default();
        for (size, need) in [(1.0, 10.0), (2.0, 20.0), (1.0, 11.0), (0.0, 5.0)] {
            repeats.push(size, need, 3);
        }
        assert_eq!(
            (repeats.of(1.0), repeats.of(2.0), repeats.of(3.0), repeats.of(0.0)),
            (Some(11.0), Some(20.0), None, None)
        );
        repeats.push(3.0, 30.0, 3);
        assert_eq!((repeats.of(1.0), repeats.of(2.0), repeats.of(3.0)), (None, Some(20.0), Some(30.0)));
    }
}
