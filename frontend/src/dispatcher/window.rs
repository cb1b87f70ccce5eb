//! How much of each queue is released ahead of the fleet: two seconds of the rate at which it is claimed, and at
//! least enough that no worker waits for the frontend.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Seconds of the observed rate that are released ahead.
const HORIZON_SECONDS: f64 = 2.0;

/// The time constant of the observed rate.
const TIME_CONSTANT_SECONDS: f64 = 5.0;

/// The least that is released ahead, for each worker and in all.
const PER_WORKER: usize = 2;
const AT_LEAST: usize = 4;

/// The windows of all queues.
#[derive(Debug, Default)]
pub(super) struct Windows {
    queues: HashMap<String, Queue>,
}

/// How a queue stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct QueueLevel {
    /// Released and not claimed.
    pub(super) unclaimed: u64,
    /// Released since this life began.
    pub(super) released: u64,
    /// As of the last measurement.
    pub(super) claims_per_second: f64,
}

#[derive(Debug)]
struct Queue {
    unclaimed: usize,
    released: u64,
    /// Claims a second, exponentially weighted.
    rate: f64,
    claimed: u32,
    measured: Instant,
}

impl Windows {
    /// How many more may be released to `queue`, which `workers` workers empty.
    pub(super) fn room(&self, queue: &str, workers: usize) -> usize {
        let known = self.queues.get(queue);
        let ahead = known.map_or(0.0, |q| q.rate * HORIZON_SECONDS);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is finite and not negative"
        )]
        let window = (ahead.ceil() as usize).max(PER_WORKER * workers).max(AT_LEAST);
        window.saturating_sub(known.map_or(0, |q| q.unclaimed))
    }

    /// One was released.
    pub(super) fn released(&mut self, queue: &str, now: Instant) {
        let queue = self.queue(queue, now);
        queue.unclaimed += 1;
        queue.released += 1;
    }

    /// One was claimed, or will never be.
    pub(super) fn left(&mut self, queue: &str, now: Instant) {
        let queue = self.queue(queue, now);
        queue.unclaimed = queue.unclaimed.saturating_sub(1);
        queue.claimed += 1;
    }

    /// Updates the rates; to be called about once a second.
    pub(super) fn measure(&mut self, now: Instant) {
        for queue in self.queues.values_mut() {
            let elapsed = now.saturating_duration_since(queue.measured);
            if elapsed < Duration::from_millis(100) {
                continue;
            }
            let seconds = elapsed.as_secs_f64();
            let weight = 1.0 - (-seconds / TIME_CONSTANT_SECONDS).exp();
            queue.rate += weight * (f64::from(queue.claimed) / seconds - queue.rate);
            queue.claimed = 0;
            queue.measured = now;
        }
    }

    /// How every queue stands that something was released to.
    pub(super) fn levels(&self) -> impl Iterator<Item = (&str, QueueLevel)> {
        self.queues.iter().map(|(name, queue)| {
            let (unclaimed, released) = (queue.unclaimed as u64, queue.released);
            (name.as_str(), QueueLevel { unclaimed, released, claims_per_second: queue.rate })
        })
    }

    /// Released and not claimed, over all queues.
    pub(super) fn unclaimed(&self) -> usize {
        self.queues.values().map(|q| q.unclaimed).sum()
    }

    fn queue(&mut self, name: &str, now: Instant) -> &mut Queue {
        self.queues.entry(name.to_owned()).or_insert(Queue {
            unclaimed: 0,
            released: 0,
            rate: 0.0,
            claimed: 0,
            measured: now,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_follows_the_rate_of_claims_and_shrinks_again() {
        let start = Instant::now();
        let mut windows = Windows::default();
        assert_eq!(windows.room("q", 1), AT_LEAST);
        assert_eq!(windows.room("q", 10), 20);
        for second in 1..=60u64 {
            for _ in 0..100 {
                windows.released("q", start);
                windows.left("q", start);
            }
            windows.measure(start + Duration::from_secs(second));
        }
        let room = windows.room("q", 1);
        assert!((190..=200).contains(&room), "{room}");
        windows.measure(start + Duration::from_secs(160));
        assert_eq!(windows.room("q", 1), AT_LEAST);
    }

    #[test]
    fn what_is_not_claimed_takes_up_room() {
        let now = Instant::now();
        let mut windows = Windows::default();
        for _ in 0..AT_LEAST {
            windows.released("q", now);
        }
        assert_eq!(windows.room("q", 0), 0);
        windows.left("q", now);
        assert_eq!(windows.room("q", 0), 1);
    }
}
