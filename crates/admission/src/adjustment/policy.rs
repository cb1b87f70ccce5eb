//! The numbers of adjustment.

use std::time::Duration;

use forecastle_resources::{Bytes, BytesPerSecond};

/// When leases change, and by how much.
///
/// # What it guarantees
///
/// Let *T* be [`shortest_interval`](Self::shortest_interval), and *R* the rate of growth that a lease of *m* bytes is
/// prepared for: [`fastest_growth`](Self::fastest_growth), but at most *m* / 16*T*. A run with headroom *h* below its
/// limit is looked at again after *h* / 2*R* ([`Self::interval`]), in which it takes at most *h* / 2 if it grows no
/// faster than *R*. It grows when less than the [reserve](Self::reserve) of 2*RT* is left; so then at least *RT* is left,
/// enough for the time *T* that growing may take. Hence no run that grows at *R* or slower meets its limit, as long as
/// there is free capacity and it is looked at when it is due. While shards wait for what is free, only runs that are
/// rising get more: one that rests within its reserve and then leaps may meet its limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdjustmentPolicy {
    /// The fastest growth of memory that is met in time.
    pub fastest_growth: BytesPerSecond,
    /// Between two looks at a run that is close to its limit.
    pub shortest_interval: Duration,
    /// Between two looks at any run.
    pub longest_interval: Duration,
    /// A lease grows by what its run would take within this time, at the speed that was seen.
    pub ahead: Duration,
    /// What a lease keeps above the most that was seen, as a part of it.
    pub margin: f64,
    /// How long a run must have used no more than before until its lease shrinks, and the least time between two such
    /// changes.
    pub settle: Duration,
    /// Below this much memory available to the whole machine, batch runs are stopped and no lease grows.
    pub least_available: Bytes,
}

impl Default for AdjustmentPolicy {
    fn default() -> Self {
        Self {
            fastest_growth: BytesPerSecond(256 << 20),
            shortest_interval: Duration::from_millis(10),
            longest_interval: Duration::from_millis(100),
            ahead: Duration::from_secs(1),
            margin: 0.1,
            settle: Duration::from_secs(5),
            least_available: Bytes::mib(128),
        }
    }
}

impl AdjustmentPolicy {
    /// The headroom below which a lease of `held` grows: 2*RT*, which is at most an eighth of it.
    pub fn reserve(&self, held: Bytes) -> Bytes {
        let most = 2.0 * self.fastest_growth.get() as f64 * self.shortest_interval.as_secs_f64();
        Bytes::from_f64(most).min(held.scale(0.125))
    }

    /// When to look again at a run with this headroom below a limit of `held`: after *h* / 2*R*, between the shortest
    /// and the longest interval.
    pub fn interval(&self, headroom: Bytes, held: Bytes) -> Duration {
        // h / 2R = T · h / 2RT
        let reserves = headroom.get() as f64 / self.reserve(held).get().max(1) as f64;
        let seconds = self.shortest_interval.as_secs_f64() * reserves;
        let due = Duration::try_from_secs_f64(seconds).unwrap_or(self.longest_interval);
        due.min(self.longest_interval).max(self.shortest_interval)
    }

    /// What a lease keeps at least when the most that was seen is `most`.
    pub(crate) fn kept(&self, most: Bytes) -> Bytes {
        let kept = most.scale(1.0 + self.margin);
        // Twice the reserve, so that a run that goes on as before is not at once close to its limit again.
        kept.saturating_add(self.reserve(kept)).saturating_add(self.reserve(kept))
    }

    /// How long a run that is expected to go on for `remaining` must have been steady before it gives something back.
    ///
    /// A third of what remains: were its samples exchangeable, the largest of all would be among the first *k* of *n*
    /// with the probability *k*/*n* (the theory of records: Rényi, "Théorie des éléments saillants d'une suite
    /// d'observations", 1962), so what a run has not shown early it may well show later. Bounded by
    /// [`Self::MOST_PATIENCE`] times the settling time: a run of hours need not prove itself for hours, since what it
    /// gave back it can still get again.
    pub(crate) fn patience(&self, remaining: Duration) -> Duration {
        (remaining / 3).min(self.settle * Self::MOST_PATIENCE).max(self.settle)
    }

    /// The longest time for which a run must be steady, in settling times.
    pub const MOST_PATIENCE: u32 = 12;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closer_the_limit_the_sooner_the_next_look() {
        let policy = AdjustmentPolicy::default();
        assert_eq!(policy.reserve(Bytes::gib(1)), Bytes(5_368_710), "2 · 256 MiB/s · 10 ms");
        assert_eq!(policy.reserve(Bytes::mib(8)), Bytes::mib(1), "an eighth");
        assert_eq!(policy.interval(Bytes::gib(1), Bytes::gib(2)), policy.longest_interval);
        let far = policy.interval(Bytes::mib(32), Bytes::gib(1));
        assert!((62..63).contains(&far.as_millis()), "{far:?}");
        assert_eq!(policy.interval(Bytes::mib(2), Bytes::mib(8)), policy.shortest_interval * 2);
        assert_eq!(policy.interval(Bytes::ZERO, Bytes::ZERO), policy.shortest_interval);
        let still = AdjustmentPolicy { fastest_growth: BytesPerSecond::ZERO, ..policy };
        assert_eq!(still.interval(Bytes::gib(1), Bytes::gib(2)), policy.longest_interval);
    }

    #[test]
    fn patience_is_a_third_of_what_remains_within_bounds() {
        let policy = AdjustmentPolicy::default();
        assert_eq!(policy.patience(Duration::from_secs(3)), policy.settle);
        assert_eq!(policy.patience(Duration::from_secs(30)), Duration::from_secs(10));
        assert_eq!(policy.patience(Duration::from_hours(5)), Duration::from_mins(1));
    }
}
