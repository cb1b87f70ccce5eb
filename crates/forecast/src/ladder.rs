//! The ladder: memory of the attempts that follow kills for memory.
//!
//! Each rung at least doubles the one before, so that a need of `m` is reached after at most ⌈log₂(m / first)⌉ kills
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

/// The ladder from `first`: the second rung is `second` or twice the first, whichever is more; later ones double.
/// It ends at `maximum`, or has [`UNBOUNDED_RUNGS`] more rungs if there is none (fewer where a `u64` of bytes ends).
pub fn rungs(first: Bytes, second: Bytes, maximum: Option<Bytes>) -> Vec<Bytes> {
    let end = maximum.unwrap_or(Bytes(u64::MAX));
    let mut rungs = vec![first.min(end)];
    let mut next = grown(first).max(second);
    while rungs.last().is_some_and(|last| *last < end) {
        if maximum.is_none() && rungs.len() > UNBOUNDED_RUNGS {
            break;
        }
        rungs.push(next.min(end));
        next = grown(next);
    }
    rungs
}

/// The memory of the attempt after `kills` kills, the last of them at `last_limit`: its rung, or the first one above
/// that limit, or, beyond the ladder, twice the limit.
pub(crate) fn next_rung(ladder: &[Bytes], kills: u32, last_limit: Bytes) -> Bytes {
    let planned = usize::try_from(kills).unwrap_or(usize::MAX).min(ladder.len().saturating_sub(1));
    ladder.iter().skip(planned).copied().find(|rung| *rung > last_limit).unwrap_or_else(|| grown(last_limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_doubles_and_ends_at_the_maximum() {
        let ladder = rungs(Bytes::mib(64), Bytes::ZERO, Some(Bytes::mib(300)));
        assert_eq!(ladder, [64, 128, 256, 300].map(Bytes::mib));
        assert_eq!(rungs(Bytes::mib(64), Bytes::ZERO, Some(Bytes::mib(64))), [Bytes::mib(64)]);
    }

    #[test]
    fn history_can_raise_the_second_rung_but_not_lower_it() {
        let maximum = Some(Bytes::gib(1));
        assert_eq!(rungs(Bytes::mib(64), Bytes::mib(300), maximum), [64, 300, 600, 1024].map(Bytes::mib));
        assert_eq!(rungs(Bytes::mib(64), Bytes::mib(65), maximum)[1], Bytes::mib(128));
    }

    proptest! {
        #[test]
        fn it_rises_strictly_to_its_end(
            first in any::<u64>(), second in any::<u64>(), maximum in proptest::option::of(1u64..),
        ) {
            let ladder = rungs(Bytes(first), Bytes(second), maximum.map(Bytes));
            prop_assert!(ladder.is_sorted_by(|a, b| a < b));
            match maximum {
                Some(maximum) => prop_assert_eq!(ladder.last(), Some(&Bytes(maximum))),
                None if first < 1 << 59 && second < 1 << 59 => prop_assert!(ladder.len() > 3),
                None => prop_assert!(ladder.len() > 3 || ladder.last() == Some(&Bytes(u64::MAX))),
            }
        }
    }
}
