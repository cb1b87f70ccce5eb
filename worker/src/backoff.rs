//! Pauses that grow: after each failure twice as long, up to a most, with some chance in them so that a fleet does not
//! come back all at once.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The pauses before further attempts.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// From `first`, doubling, to `most`.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The next pause: between three quarters of the nominal one and all of it.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let nominal = self.first.saturating_mul(1 << self.failures.min(16)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        // Each `RandomState` has other keys.
        let chance = (RandomState::new().hash_one(self.failures) % 1024) as f64 / 1024.0;
        nominal.mul_f64(0.75 + chance / 4.0)
    }

    /// Starts over, after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_most_and_starts_over() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, most);
        for nominal in [100, 200, 400, 800, 1000, 1000] {
            let (pause, nominal) = (backoff.next_pause(), Duration::from_millis(nominal));
            assert!(pause <= nominal && pause >= nominal.mul_f64(0.75), "{pause:?} {nominal:?}");
        }
        (0..100).for_each(|_| assert!(backoff.next_pause() <= most));
        backoff.reset();
        assert!(backoff.next_pause() <= first);
    }
}
