//! How long to wait before trying again: twice as long each time up to a limit, with jitter so that a fleet that lost
//! its broker does not return in step.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new(longest: Duration) -> Self {
        Self { next: FIRST.min(longest), longest }
    }

    /// The next delay, between half and all of the present step.
    pub(crate) fn delay(&mut self) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.longest);
        // The standard library's random hash keys are the only randomness that this crate needs.
        let random = RandomState::new().build_hasher().finish();
        step / 2 + (step / 2).mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST.min(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_limit_stay_in_their_step_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        for step in [100, 200, 400, 800, 1000, 1000] {
            let delay = backoff.delay();
            assert!(delay >= Duration::from_millis(step / 2) && delay <= Duration::from_millis(step), "{delay:?}");
        }
        backoff.reset();
        assert!(backoff.delay() <= FIRST);
    }
}
