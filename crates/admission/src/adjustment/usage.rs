//! What was seen of a run.

use std::collections::VecDeque;
use std::time::Duration;

use forecastle_resources::Bytes;

use crate::time::Time;

/// The least time over which a rate of CPU or I/O means something.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// A rise of memory by less than this part of the most so far is noise, if it is also less than [`NOISE_BYTES`].
const NOISE: f64 = 0.01;
const NOISE_BYTES: Bytes = Bytes::mib(1);

/// What a run uses: memory now, the rest as sums since it started. `None` is not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageSample {
    /// Memory that the kernel cannot take back.
    pub memory: Option<Bytes>,
    /// CPU time of all its processes.
    pub cpu: Option<Duration>,
    /// Bytes read and written.
    pub io: Option<Bytes>,
}

/// The memory of one run.
#[derive(Debug, Clone)]
pub(crate) struct MemoryTrack {
    /// In the last sample.
    pub(crate) now: Bytes,
    /// The most of any sample.
    pub(crate) most: Bytes,
    /// The most when it last rose by more than noise.
    record: Bytes,
    /// When that was.
    pub(crate) record_at: Time,
    started: Time,
    /// Bytes per second over the last moments; zero if it fell.
    pub(crate) speed: f64,
    /// Samples of the last moments, and one before them.
    recent: VecDeque<(Time, Bytes)>,
}

impl MemoryTrack {
    pub(crate) fn first(memory: Bytes, now: Time) -> Self {
        let recent = VecDeque::from([(now, memory)]);
        let (most, record) = (memory, memory);
        Self { now: memory, most, record, record_at: now, started: now, speed: 0.0, recent }
    }

    /// True if it has risen above all before within this time.
    pub(crate) fn is_rising(&self, within: Duration, now: Time) -> bool {
        self.record_at > self.started && now.since(self.record_at) < within
    }

    /// Takes a sample; the speed is that over the last `window`.
    pub(crate) fn take(&mut self, memory: Bytes, now: Time, window: Duration) {
        self.now = memory;
        self.most = self.most.max(memory);
        if memory > self.record.saturating_add(self.record.scale(NOISE).min(NOISE_BYTES)) {
            (self.record, self.record_at) = (memory, now);
        }
        self.recent.push_back((now, memory));
        while self.recent.get(1).is_some_and(|(at, _)| now.since(*at) >= window) {
            self.recent.pop_front();
        }
        if let Some((at, before)) = self.recent.front() {
            // Two samples that are very close would make any step a storm.
            let seconds = now.since(*at).max(window).as_secs_f64();
            self.speed = memory.saturating_sub(*before).get() as f64 / seconds;
        }
    }
}

/// A rate, from sums that only rise. Windows of at least a second.
#[derive(Debug, Clone, Default)]
pub(crate) struct RateTrack {
    started: Option<(Time, f64)>,
    /// Of the last whole window.
    pub(crate) last: f64,
    /// The most of any window.
    pub(crate) most: f64,
    /// Windows so far.
    pub(crate) windows: u32,
}

impl RateTrack {
    /// Takes a sum; true if that ended a window.
    pub(crate) fn take(&mut self, sum: f64, now: Time) -> bool {
        let Some((at, before)) = self.started else {
            self.started = Some((now, sum));
            return false;
        };
        let elapsed = now.since(at);
        if elapsed < RATE_WINDOW {
            return false;
        }
        self.last = ((sum - before) / elapsed.as_secs_f64()).max(0.0);
        self.most = self.most.max(self.last);
        self.windows = self.windows.saturating_add(1);
        self.started = Some((now, sum));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(100);

    fn at(milliseconds: u64) -> Time {
        Time(Duration::from_millis(milliseconds))
    }

    #[test]
    fn speed_is_that_of_the_last_moments_and_records_are_more_than_noise() {
        let mut track = MemoryTrack::first(Bytes::mib(100), at(0));
        track.take(Bytes::mib(110), at(50), WINDOW);
        assert_eq!(Bytes::from_f64(track.speed), Bytes::mib(100), "10 MiB within a window of 100 ms");
        for step in 1..=10 {
            track.take(Bytes::mib(110), at(50 + 50 * step), WINDOW);
        }
        assert_eq!((track.speed, track.record_at), (0.0, at(50)));
        track.take(Bytes::mib(111), at(600), WINDOW);
        assert_eq!((track.record_at, track.most), (at(50), Bytes::mib(111)), "a hundredth is noise");
        track.take(Bytes::mib(112), at(650), WINDOW);
        assert_eq!(track.record_at, at(650), "and many hundredths are not");
        track.take(Bytes::mib(10), at(700), WINDOW);
        assert_eq!((track.speed, track.most), (0.0, Bytes::mib(112)));
    }

    #[test]
    fn rates_are_taken_over_whole_windows() {
        let mut track = RateTrack::default();
        assert!(!track.take(0.0, at(0)) && !track.take(900.0, at(900)));
        assert!(track.take(1000.0, at(1000)));
        assert!(track.take(1200.0, at(2000)));
        assert_eq!((track.last, track.most, track.windows), (200.0, 1000.0, 2));
    }
}
