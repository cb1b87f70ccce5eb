//! How many starts to prepare: of each unit as many as are likely to be used.
//!
//! Starts within the horizon are taken as a Poisson process. One more prepared start is worth its memory if the
//! probability that it is used, P(N > n), is at least [`WORTH`]: the single-period inventory ("newsvendor") rule, where
//! that probability is the critical ratio of what keeping costs to what a late start costs. Where all cannot be kept,
//! those that are used most probably are.

/// The least probability of being used with which a start is prepared.
pub const WORTH: f64 = 0.1;

/// More than is ever prepared of one unit.
const CEILING: f64 = 1e6;

/// What is expected of one unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expectation {
    /// Starts within the horizon, in the mean. What is no number, or less than zero, is none.
    pub starts: f64,
    /// The most that can run at the same time.
    pub at_once: usize,
}

/// How many starts to prepare of each unit, at most `most` together.
pub fn plan(expected: &[Expectation], most: usize) -> Vec<usize> {
    let mut tails: Vec<Tail> = expected.iter().map(|expected| Tail::of(expected.starts)).collect();
    let mut counts = vec![0; expected.len()];
    for _ in 0..most {
        let best = (0..expected.len())
            .filter(|&unit| counts[unit] < expected[unit].at_once && tails[unit].used >= WORTH)
            // Of equals the first: `max_by` takes the last.
            .rev()
            .max_by(|&a, &b| tails[a].used.total_cmp(&tails[b].used));
        let Some(unit) = best else { break };
        counts[unit] += 1;
        tails[unit].advance();
    }
    counts
}

/// P(N > n) of a Poisson distribution, for n = 0, 1, 2, …
#[derive(Debug)]
struct Tail {
    mean: f64,
    n: u32,
    /// ln P(N = n): of large means, P(N = 0) is less than a double can hold.
    log_probability: f64,
    /// P(N > n).
    used: f64,
}

impl Tail {
    fn of(mean: f64) -> Self {
        let mean = if mean > 0.0 { mean.min(CEILING) } else { 0.0 };
        Self { mean, n: 0, log_probability: -mean, used: 1.0 - (-mean).exp() }
    }

    fn advance(&mut self) {
        self.n += 1;
        self.log_probability += self.mean.ln() - f64::from(self.n).ln();
        self.used -= self.log_probability.exp();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(starts: f64) -> usize {
        plan(&[Expectation { starts, at_once: usize::MAX }], 1000)[0]
    }

    #[test]
    fn as_many_are_prepared_as_the_tables_of_the_distribution_say() {
        // The 0.9 quantile of the Poisson distribution: the smallest n with P(N <= n) > 0.9.
        for (mean, quantile) in [(0.0, 0), (0.1, 0), (0.11, 1), (0.5, 1), (1.0, 2), (4.0, 7), (10.0, 14), (100.0, 113)]
        {
            assert_eq!(one(mean), quantile, "{mean}");
        }
        for nonsense in [f64::NAN, -1.0, f64::NEG_INFINITY] {
            assert_eq!(one(nonsense), 0);
        }
        assert_eq!(one(f64::INFINITY), 1000);
        assert_eq!(one(2000.0), 1000);
    }

    #[test]
    fn what_is_scarce_goes_where_it_is_used_most_probably() {
        let expected = [(0.2, 9), (6.0, 9), (6.0, 2)].map(|(starts, at_once)| Expectation { starts, at_once });
        assert_eq!(plan(&expected, 4), [0, 2, 2]);
        assert_eq!(plan(&expected, 100), [1, 9, 2]);
        assert_eq!(plan(&expected, 0), [0, 0, 0]);
        assert_eq!(plan(&[], 4), [0; 0]);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_more_room_never_means_fewer(
            expected in proptest::collection::vec((0.0..50.0f64, 0usize..20), 0..6), most in 0usize..60,
        ) {
            let expected: Vec<_> =
                expected.into_iter().map(|(starts, at_once)| Expectation { starts, at_once }).collect();
            let (some, more) = (plan(&expected, most), plan(&expected, most + 1));
            prop_assert!(some.iter().sum::<usize>() <= most);
            for ((count, later), expected) in some.iter().zip(&more).zip(&expected) {
                prop_assert!(count <= later && *count <= expected.at_once);
                prop_assert!(*count == 0 || expected.starts > 0.1);
            }
        }
    }
}
