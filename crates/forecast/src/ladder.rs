//! The ladder: memory of the attempts that follow kills for memory.
//!
//! What history says is planned (see [`crate::experts`]); beyond that each rung doubles the one before, so that a need of `m` is reached after at most ⌈log₂(m / first)⌉ kills
//! and the memory held by all failed attempts together is less than that of the last. (Doubling after a failure is the
//! usual choice; Witt, Wagner and Leser, "Feedback-based resource allocation for batch scheduling of scientific
//! workflows", HPCS 2019.)

use forecastle_resources::Bytes;

/// Rungs after the first, where no maximum ends the ladder.
pub const UNBOUNDED_RUNGS: usize = 4;

/// The second rung of a ladder that begins with next to nothing.
const SMALLEST_SECOND: Bytes = Bytes::mib(1);

/// How much each rung multiplies the one before.
const GROWTH: u64 = 2;

/// What follows `rung`.
fn grown(rung: Bytes) -> Bytes {
    Bytes(rung.0.saturating_mul(GROWTH)).max(SMALLEST_SECOND)
}

/// The ladder from `first`: it goes on with the planned rungs above that, and then doubles. It ends at `maximum`, or has
/// at least [`UNBOUNDED_RUNGS`] more rungs if there is none (fewer where a `u64` of bytes ends).
pub fn completed(first: Bytes, planned: &[Bytes], maximum: Option<Bytes>) -> Vec<Bytes> {
    let end = maximum.unwrap_or(Bytes(u64::MAX));
    let mut rungs = vec![first.min(end)];
    let mut last = first.min(end);
    for rung in planned {
        if *rung > last && last < end {
            last = (*rung).min(end);
            rungs.push(last);
        }
    }
    while last < end && (maximum.is_some() || rungs.len() <= UNBOUNDED_RUNGS) {
        last = grown(last).min(end);
        rungs.push(last);
    }
    rungs
}

/// The memory of the attempt after a kill at this limit: the first rung above it, or, beyond the ladder, twice the limit.
pub(crate) fn next_rung(ladder: &[Bytes], last_limit: Bytes) -> Bytes {
    ladder.iter().copied().find(|rung| *rung > last_limit).unwrap_or_else(|| grown(last_limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_doubles_and_ends_at_the_maximum() {
        let ladder = completed(Bytes::mib(64), &[], Some(Bytes::mib(300)));
        assert_eq!(ladder, [64, 128, 256, 300].map(Bytes::mib));
        assert_eq!(completed(Bytes::mib(64), &[], Some(Bytes::mib(64))), [Bytes::mib(64)]);
        assert_eq!(completed(Bytes::mib(64), &[], None), [64, 128, 256, 512, 1024].map(Bytes::mib));
    }

    #[test]
    fn what_was_planned_comes_before_doubling() {
        let planned = [32, 70, 90, 500].map(Bytes::mib);
        assert_eq!(completed(Bytes::mib(64), &planned, Some(Bytes::mib(300))), [64, 70, 90, 300].map(Bytes::mib));
        assert_eq!(
            completed(Bytes::mib(64), &planned[..3], Some(Bytes::mib(300))),
            [64, 70, 90, 180, 300].map(Bytes::mib)
        );
        assert_eq!(completed(Bytes::mib(64), &planned[..2], None), [64, 70, 140, 280, 560].map(Bytes::mib));
    }

    proptest! {
        #[test]
        fn it_rises_strictly_to_its_end(
            first in any::<u64>(), planned in proptest::collection::vec(any::<u64>(), 0..6),
            maximum in proptest::option::of(1u64..),
        ) {
            let planned: Vec<Bytes> = planned.into_iter().map(Bytes).collect();
            let ladder = completed(Bytes(first), &planned, maximum.map(Bytes));
            prop_assert!(ladder.is_sorted_by(|a, b| a < b));
            match maximum {
                Some(maximum) => prop_assert_eq!(ladder.last(), Some(&Bytes(maximum))),
                None => prop_assert!(ladder.len() > UNBOUNDED_RUNGS || ladder.last() == Some(&Bytes(u64::MAX))),
            }
        }
    }
}
