//! Runs that were killed for memory: censored observations, the need is somewhere above the limit.
//!
//! A kill counts for all inputs as large as its own, until a success settles it (one on exactly the same input that needed
//! more than its limit: another attempt, probably) or several contradict it (on as much input or more, and within its
//! limit).

use std::collections::VecDeque;

use super::history::push;

/// Successes within its limit after which a kill is taken for an exception.
const CONTRADICTIONS: u8 = 8;

/// Kills remembered.
const MOST: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Kill {
    size: f64,
    limit: f64,
    contradictions: u8,
}

/// The kills that nothing has settled yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Kills {
    kills: VecDeque<Kill>,
}

impl Kills {
    pub(super) fn len(&self) -> usize {
        self.kills.len()
    }

    /// The most that was too little for an input of this size; zero if nothing was.
    pub(super) fn limit(&self, size: f64) -> f64 {
        self.kills.iter().filter(|kill| kill.size <= size).map(|kill| kill.limit).fold(0.0, f64::max)
    }

    pub(super) fn push(&mut self, size: f64, limit: f64) {
        push(&mut self.kills, Kill { size, limit, contradictions: 0 }, MOST);
    }

    /// A run with an input of this size needed so much.
    pub(super) fn settle(&mut self, size: f64, need: f64) {
        self.kills.retain_mut(|kill| {
            if need > kill.limit {
                return kill.size.to_bits() != size.to_bits();
            }
            if size >= kill.size {
                kill.contradictions += 1;
            }
            kill.contradictions < CONTRADICTIONS
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_resources::Bytes;

    fn limits(kills: &Kills, sizes: [u32; 3]) -> [u64; 3] {
        sizes.map(|size| Bytes::from_f64(kills.limit(size.into())).0)
    }

    #[test]
    fn a_kill_counts_for_larger_inputs_until_it_is_settled_or_contradicted() {
        let mut kills = Kills::default();
        kills.push(10.0, 100.0);
        kills.push(20.0, 50.0);
        assert_eq!(limits(&kills, [5, 10, 30]), [0, 100, 100]);
        kills.settle(10.0, 150.0);
        assert_eq!(limits(&kills, [5, 10, 20]), [0, 0, 50]);
        // Smaller inputs say nothing.
        (0..20).for_each(|_| kills.settle(10.0, 40.0));
        assert_eq!(kills.len(), 1);
        (0..8).for_each(|_| kills.settle(30.0, 40.0));
        assert_eq!(kills.len(), 0);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut kills = Kills::default();
        (0..100).for_each(|kill| kills.push(f64::from(kill), f64::from(1000 - kill)));
        assert_eq!((kills.len(), limits(&kills, [50, 99, 999])), (MOST, [964, 964, 964]));
    }
}
