//! The two clocks of a worker: a monotonic one for decisions, the machine's for the wire.

use std::time::Duration;

use forecastle_admission::Time;
use forecastle_service::WallClock;
use tokio::time::Instant;

thread_local! {
    static CLOCK: WallClock = const { WallClock::machine() };
}

/// Milliseconds since 1970 as the wire carries them. A clock before 1970 reads as 0.
pub fn now_unix_ms() -> u64 {
    CLOCK.with(WallClock::now_unix_ms)
}

/// For simulations: it is `unix_ms` now for workers on this thread, and time goes on as the runtime's does.
pub fn simulate(unix_ms: u64) {
    CLOCK.with(|clock| clock.simulate(unix_ms));
}

/// Instants for the pool and the claim policy: near the time since 1970, so that release times of the wire compare with
/// them, but never going back.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    started_unix: Duration,
}

impl Clock {
    /// A clock that agrees with the machine's now.
    pub fn start() -> Self {
        Self { started: Instant::now(), started_unix: Duration::from_millis(now_unix_ms()) }
    }

    /// Now.
    pub fn now(&self) -> Time {
        Time(self.started_unix.saturating_add(self.started.elapsed()))
    }

    /// An instant of the wire; one in the future (a sender's clock is ahead) is now.
    pub fn at_unix_ms(&self, ms: u64) -> Time {
        Time(Duration::from_millis(ms)).min(self.now())
    }

    /// When `time` will be on the runtime's clock.
    pub fn instant(&self, time: Time) -> Instant {
        self.started + time.0.saturating_sub(self.started_unix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn follows_the_runtime_and_takes_the_wire_for_no_later_than_now() {
        let clock = Clock::start();
        let before = clock.now();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.now().since(before), Duration::from_secs(5));
        let released = u64::try_from(before.0.as_millis()).unwrap();
        assert_eq!(clock.now().since(clock.at_unix_ms(released)), Duration::from_secs(5));
        assert_eq!(clock.at_unix_ms(released + 3_600_000), clock.now());
        assert_eq!(clock.instant(clock.now()), Instant::now());
    }
}
