//! Wall-clock time as the wire and the ledger carry it.

use forecastle_service::WallClock;

thread_local! {
    static CLOCK: WallClock = const { WallClock::machine() };
}

/// Milliseconds since 1970. A clock before 1970 reads as 0.
pub fn now_ms() -> u64 {
    CLOCK.with(WallClock::now_unix_ms)
}

/// For simulations: it is `unix_ms` now for frontends on this thread, and time goes on as the runtime's does.
pub fn simulate(unix_ms: u64) {
    CLOCK.with(|clock| clock.simulate(unix_ms));
}
