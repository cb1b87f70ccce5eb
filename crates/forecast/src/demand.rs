//! How much work is expected to start: a rate for each kind of it.
//!
//! Two exponentially weighted moving averages of starts per second. The fast one sees a wave of work within seconds; the
//! slow one remembers waves that come minutes apart. What is expected is the larger of the two, since work that starts
//! late costs more than what was made ready for nothing. With an exponential kernel of time constant τ, a start at tᵢ
//! counts as e^(-(t - tᵢ)/τ)/τ at t: the mean of a steady stream of rate λ is λ.

use std::collections::BTreeMap;
use std::time::Duration;

/// The time constant that sees a wave of work.
pub const FAST: Duration = Duration::from_secs(10);

/// The time constant that remembers the last ones.
pub const SLOW: Duration = Duration::from_mins(5);

/// Starts within a horizon below which a kind of work is forgotten.
const NEGLIGIBLE: f64 = 0.01;

/// What is expected of each kind `K` of work. Times are since any moment that is the same for all calls.
#[derive(Debug, Clone)]
pub struct DemandForecaster<K> {
    kinds: BTreeMap<K, Rates>,
}

/// Starts per second.
#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    fast: f64,
    slow: f64,
    at: Duration,
}

impl Rates {
    fn at(self, now: Duration) -> Self {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        let decayed = |rate: f64, constant: Duration| rate * (-passed / constant.as_secs_f64()).exp();
        Self { fast: decayed(self.fast, FAST), slow: decayed(self.slow, SLOW), at: self.at.max(now) }
    }
}

impl<K> Default for DemandForecaster<K> {
    fn default() -> Self {
        Self { kinds: BTreeMap::new() }
    }
}

impl<K: Ord> DemandForecaster<K> {
    /// Some work of a kind starts.
    pub fn started(&mut self, kind: K, now: Duration) {
        let rates = self.kinds.entry(kind).or_default();
        *rates = rates.at(now);
        rates.fast += 1.0 / FAST.as_secs_f64();
        rates.slow += 1.0 / SLOW.as_secs_f64();
    }

    /// How many starts of each kind are expected within `horizon` from now. Forgets kinds of which hardly any are.
    pub fn expected(&mut self, now: Duration, horizon: Duration) -> impl Iterator<Item = (&K, f64)> {
        let starts = move |rates: &Rates| {
            let rates = rates.at(now);
            rates.fast.max(rates.slow) * horizon.as_secs_f64()
        };
        self.kinds.retain(|_, rates| starts(rates) >= NEGLIGIBLE);
        self.kinds.iter().map(move |(kind, rates)| (kind, starts(rates)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HORIZON: Duration = Duration::from_secs(10);

    fn after(starts: impl Iterator<Item = Duration>, now: Duration) -> Option<f64> {
        let mut forecaster = DemandForecaster::default();
        starts.for_each(|at| forecaster.started("u", at));
        forecaster.expected(now, HORIZON).next().map(|(_, starts)| starts)
    }

    #[test]
    fn a_wave_is_seen_at_once_and_remembered_for_minutes() {
        let wave = || std::iter::repeat_n(Duration::ZERO, 100);
        let starts = |seconds| after(wave(), Duration::from_secs(seconds)).unwrap();
        assert!((99.0..101.0).contains(&starts(0)), "{}", starts(0));
        // By now it is the slow average that remembers: a third of a start per second.
        assert!((2.0..3.0).contains(&starts(60)), "{}", starts(60));
        assert_eq!(after(wave(), Duration::from_hours(1)), None, "forgotten");
    }

    #[test]
    fn waves_minutes_apart_are_expected_between_them() {
        let waves = (0..30u64).flat_map(|wave| std::iter::repeat_n(Duration::from_mins(wave), 60));
        // One per second in the long run; half a minute after the last wave nothing else tells.
        let starts = after(waves, Duration::from_secs(29 * 60 + 50)).unwrap();
        assert!((8.0..12.0).contains(&starts), "{starts}");
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_changes_nothing() {
        let at = Duration::from_secs(100);
        let starts = after([at, Duration::ZERO, at].into_iter(), Duration::ZERO).unwrap();
        assert!((2.99..3.01).contains(&starts), "{starts}");
    }

    proptest! {
        #[test]
        fn a_steady_stream_is_expected_to_go_on(expected in 5u32..2000) {
            // So many within each horizon, for three hours.
            let at = |number: u32| HORIZON * number / expected;
            let count = expected * 180;
            let starts = after((0..count).map(at), at(count)).unwrap();
            let expected = f64::from(expected);
            // The kernel is a sum of steps: one start more or less in a fast time constant.
            prop_assert!((starts - expected).abs() <= expected * 0.02 + 1.0, "{starts} of {expected}");
        }
    }
}
