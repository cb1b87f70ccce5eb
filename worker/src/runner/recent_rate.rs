//! The rates of the last second or so, from samples of sums.

use std::time::Duration;

use forecastle_resources::{BytesPerSecond, CpuMillis};

use crate::enforcement::Sample;

/// Samples are compared over at least this much time: the kernel accounts CPU in steps of up to ten milliseconds, so
/// two samples a moment apart say little.
const WINDOW: Duration = Duration::from_secs(1);

/// Rates over the last whole window; before the first has passed, over the time since the start. Pure.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecentRate {
    began: Duration,
    first: Sums,
    /// Of the last whole window.
    known: Option<Rates>,
}

/// How fast something is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Cores, in thousandths.
    pub cpu: CpuMillis,
    /// Bytes read and written per second.
    pub io: BytesPerSecond,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    cpu: Duration,
    io: u64,
}

impl RecentRate {
    /// Takes a sample, `at` since the start.
    pub fn take(&mut self, at: Duration, sample: &Sample) -> Rates {
        let sums = Sums {
            cpu: sample.cpu.unwrap_or_default(),
            io: sample.io_read.get().saturating_add(sample.io_write.get()),
        };
        let elapsed = at.saturating_sub(self.began);
        if elapsed < WINDOW {
            return self.known.unwrap_or_else(|| self.first.rates(&sums, elapsed));
        }
        let rates = self.first.rates(&sums, elapsed);
        *self = Self { began: at, first: sums, known: Some(rates) };
        rates
    }
}

impl Sums {
    fn rates(&self, later: &Self, elapsed: Duration) -> Rates {
        let seconds = elapsed.as_secs_f64();
        if seconds <= 0.0 {
            return Rates::default();
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "differences of sums are not negative, and a float saturates"
        )]
        let per_second = |amount: f64| (amount / seconds).round() as u64;
        Rates {
            cpu: CpuMillis(per_second(later.cpu.saturating_sub(self.cpu).as_secs_f64() * 1000.0)),
            io: BytesPerSecond(per_second(later.io.saturating_sub(self.io) as f64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_resources::Bytes;

    fn sample(cpu_ms: u64, io: u64) -> Sample {
        Sample { cpu: Some(Duration::from_millis(cpu_ms)), io_read: Bytes(io), ..Sample::default() }
    }

    #[test]
    fn rates_are_those_of_the_last_window() {
        let mut recent = RecentRate::default();
        let at = Duration::from_millis;
        assert_eq!(recent.take(at(0), &sample(9, 9)), Rates::default(), "no time has passed");
        assert_eq!(recent.take(at(100), &sample(50, 0)).cpu, CpuMillis(500), "since the start");
        assert_eq!(recent.take(at(1000), &sample(2000, 4096)).cpu, CpuMillis(2000));
        let then = recent.take(at(1500), &sample(2000, 4096));
        assert_eq!((then.cpu, then.io), (CpuMillis(2000), BytesPerSecond(4096)), "until another window has passed");
        assert_eq!(recent.take(at(3000), &sample(2000, 4096)), Rates::default());
    }

    #[test]
    fn sums_that_shrink_or_are_missing_count_as_nothing() {
        let mut recent = RecentRate::default();
        recent.take(Duration::from_secs(1), &sample(2000, 9));
        assert_eq!(recent.take(Duration::from_secs(2), &sample(1000, 0)), Rates::default());
        assert_eq!(recent.take(Duration::from_secs(3), &Sample::default()), Rates::default());
    }
}
