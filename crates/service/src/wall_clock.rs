//! The time since 1970: the machine's, or a simulation's.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Tells the time since 1970. A simulation can have a thread's clock follow the runtime instead of the machine, ahead
/// of others or behind them.
#[derive(Debug, Default)]
pub struct WallClock(Cell<Option<Simulated>>);

#[derive(Debug, Clone, Copy)]
struct Simulated {
    set_at: Instant,
    to: Duration,
}

impl WallClock {
    /// The machine's clock.
    pub const fn machine() -> Self {
        Self(Cell::new(None))
    }

    /// Milliseconds since 1970. A clock before 1970 reads as 0.
    pub fn now_unix_ms(&self) -> u64 {
        let now = match self.0.get() {
            Some(Simulated { set_at, to }) => to.saturating_add(set_at.elapsed()),
            None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO),
        };
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }

    /// For simulations: it is `unix_ms` now, and goes on with the runtime's time.
    pub fn simulate(&self, unix_ms: u64) {
        self.0.set(Some(Simulated { set_at: Instant::now(), to: Duration::from_millis(unix_ms) }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_machines() {
        let clock = WallClock::machine();
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let told = u128::from(clock.now_unix_ms());
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        assert!((before..=after).contains(&told), "{before} {told} {after}");
    }

    #[tokio::test(start_paused = true)]
    async fn follows_the_runtime_and_jumps_when_it_is_set() {
        let clock = WallClock::machine();
        clock.simulate(1_000_000);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(clock.now_unix_ms(), 1_003_000);
        clock.simulate(500);
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(clock.now_unix_ms(), 505);
    }
}
