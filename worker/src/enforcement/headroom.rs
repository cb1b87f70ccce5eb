//! The last part of a run's memory, which version 2 lets it enter slowly.
//!
//! Below the limit stands a mark (`memory.high`). Above it the kernel takes page cache back and makes the run wait, so
//! that whoever watches has the time to give it more before the limit kills it. The kernel would make it wait for as
//! long as it stays there, and a run that needs just what it reserved would hardly move: so the mark is taken away when
//! the run has been above it for a while. Nothing is slowed for longer than that.

use std::time::{Duration, Instant};

use forecastle_resources::Bytes;

/// How long a run is slowed: some samples of the meter and a decision.
const SLOWED_FOR: Duration = Duration::from_millis(500);

/// The kernel counts what it has set aside for a processor as used, samples do not: closer to the mark than one part in
/// so many is above it.
const CLOSE: u64 = 32;

/// A mark that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    at: Bytes,
    above_since: Option<Instant>,
}

impl Mark {
    /// The mark for a limit, with this part of it above. `None` if nothing is to be above.
    pub(crate) fn below(limit: Bytes, percent: u8) -> Option<Self> {
        let above = limit.get() / 100 * u64::from(percent.min(100));
        (above > 0).then(|| Self { at: Bytes(limit.get() - above), above_since: None })
    }

    /// Where it is.
    pub(crate) fn at(&self) -> Bytes {
        self.at
    }

    /// Takes a sample of actual memory; true if the mark is to be taken away.
    pub(crate) fn has_served(&mut self, memory: Bytes, now: Instant) -> bool {
        if memory.get() < self.at.get() - self.at.get() / CLOSE {
            self.above_since = None;
            return false;
        }
        let since = *self.above_since.get_or_insert(now);
        now.saturating_duration_since(since) >= SLOWED_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_below_the_limit() {
        let at = |limit, percent| Mark::below(limit, percent).map(|mark| mark.at());
        assert_eq!(at(Bytes(1000), 5), Some(Bytes(950)));
        assert_eq!(at(Bytes(1000), 0), None);
        assert_eq!(at(Bytes(99), 5), None);
        assert_eq!(at(Bytes(u64::MAX), 255), Some(Bytes(u64::MAX % 100)));
    }

    #[test]
    fn it_serves_once_and_only_while_the_run_is_above() {
        let mut mark = Mark::below(Bytes(1000), 10).unwrap();
        let start = Instant::now();
        assert!(!mark.has_served(Bytes(900), start));
        assert!(!mark.has_served(Bytes(100), start + SLOWED_FOR), "it went down in between");
        assert!(!mark.has_served(Bytes(890), start + SLOWED_FOR), "close counts as above");
        assert!(!mark.has_served(Bytes(950), start + SLOWED_FOR * 3 / 2));
        assert!(mark.has_served(Bytes(950), start + SLOWED_FOR * 2));
    }
}
