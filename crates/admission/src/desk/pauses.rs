//! Pauses that grow: after each hand-back twice as long, up to a most, with some chance in them.

use std::time::Duration;

/// A sequence of numbers without pattern (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Between 0 and 1, exclusive.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The pauses of one queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pauses {
    first: Duration,
    most: Duration,
    so_far: u32,
}

impl Pauses {
    /// From `first`, doubling, to `most`.
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most: most.max(first), so_far: 0 }
    }

    /// The next pause: between three quarters of the nominal one and all of it.
    pub(super) fn next(&mut self, chance: &mut Chance) -> Duration {
        let nominal = self.first.saturating_mul(1 << self.so_far.min(16)).min(self.most);
        self.so_far = self.so_far.saturating_add(1);
        nominal.mul_f64(0.75 + chance.fraction() / 4.0)
    }

    pub(super) fn longest(&self) -> Duration {
        self.most
    }

    /// Starts over, after a claim.
    pub(super) fn reset(&mut self) {
        self.so_far = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_double_up_to_the_most_start_over_and_differ_between_seeds() {
        let sequence = |seed| -> Vec<Duration> {
            let mut pauses = Pauses::new(Duration::from_secs(2), Duration::from_secs(30));
            let mut chance = Chance::new(seed);
            (0..7).map(|_| pauses.next(&mut chance)).collect()
        };
        for (pause, nominal) in sequence(1).into_iter().zip([2, 4, 8, 16, 30, 30, 30]) {
            let nominal = Duration::from_secs(nominal);
            assert!(pause <= nominal && pause >= nominal.mul_f64(0.75), "{pause:?} {nominal:?}");
        }
        assert_eq!(sequence(1), sequence(1));
        assert_ne!(sequence(1), sequence(2));
        let mut pauses = Pauses::new(Duration::from_secs(2), Duration::from_secs(30));
        let mut chance = Chance::new(1);
        (0..100).for_each(|_| assert!(pauses.next(&mut chance) <= Duration::from_secs(30)));
        pauses.reset();
        assert!(pauses.next(&mut chance) <= Duration::from_secs(2));
    }
}
