//! Items into shards of about equal size.
//!
//! Items go, the largest first, each into the shard that is smallest so far and not full (longest processing time
//! first; R. L. Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17, 1969), with a bound on
//! the items of a shard.
//!
//! # How good it is
//!
//! **Largest and smallest shard differ by at most the largest item**, also with the bound on items. So the largest
//! shard is at most the mean plus the largest item, hence at most twice the best possible; where the bound on items
//! does not bite, Graham's bound for k shards holds: at most 4/3 − 1/(3k) of the best possible.
//!
//! Proof of the first. Let B be any shard, with items b₁ ≥ b₂ ≥ …, F another with items f₁ ≥ f₂ ≥ …, each in the order
//! in which they came. If F was not full when B got its last item, B was no larger than F just before. If F was full,
//! let i be the last position at which F had fewer than i − 1 items when B got bᵢ: F was not full then, so B was no
//! larger than F just before; for every later j, F had j − 1 items when bⱼ came, so bⱼ ≤ fⱼ₋₁, and that item of F came
//! after position i was filled, so none is counted twice: B ≤ F + bᵢ. If there is no such i, then bⱼ ≤ fⱼ₋₁ for all
//! j ≥ 2: B ≤ b₁ + F.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use forecastle_catalogue::ShardBounds;

use crate::plan::Item;

/// How many shards are wanted for items of these sizes: enough for each to have at most `target_bytes` and
/// `max_items`, but no more than `max_shards` and no more than there are items.
///
/// An item that is larger than the target counts as one target: it fills a shard, and since it cannot be divided,
/// further shards for the rest of it would only scatter the small items.
pub fn shard_count(sizes: impl ExactSizeIterator<Item = u64>, bounds: &ShardBounds) -> usize {
    let items = sizes.len() as u128;
    let target = u128::from(bounds.target_bytes.0.max(1));
    let total: u128 = sizes.map(|bytes| u128::from(bytes).min(target)).sum();
    let wanted = total.div_ceil(target).max(items.div_ceil(u128::from(bounds.max_items.max(1)))).max(1);
    let count = wanted.min(u128::from(bounds.max_shards.max(1))).min(items);
    // At most the number of items, which came from a `usize`.
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Items into shards, each sorted by name; none is empty. The order of `items` does not matter as long as their names
/// differ; the order of the shards is no promise. `None` if more items come than `max_shards` shards can hold.
pub fn balance<'a>(items: &[&'a Item], bounds: &ShardBounds) -> Option<Vec<Vec<&'a Item>>> {
    if items.len() as u128 > u128::from(bounds.max_items) * u128::from(bounds.max_shards) {
        return None;
    }
    let count = shard_count(items.iter().map(|item| item.bytes), bounds);
    let mut largest_first = items.to_vec();
    largest_first.sort_unstable_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    let mut shards: Vec<Vec<&Item>> = vec![Vec::new(); count];
    // Smallest first; among equals the one with the fewest items, so that items without a size spread too, and every
    // shard gets its first item before any gets a second one (there are no more shards than items).
    let mut open: BinaryHeap<Reverse<(u128, usize, usize)>> = (0..count).map(|shard| Reverse((0, 0, shard))).collect();
    let full = usize::try_from(bounds.max_items).unwrap_or(usize::MAX);
    for item in largest_first {
        // Never empty: the shards that are wanted hold all items.
        let Reverse((bytes, held, shard)) = open.pop()?;
        shards[shard].push(item);
        if held + 1 < full {
            open.push(Reverse((bytes + u128::from(item.bytes), held + 1, shard)));
        }
    }
    for shard in &mut shards {
        shard.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    }
    Some(shards)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_catalogue::ShardBounds;
    use proptest::prelude::*;

    fn bounds(target_bytes: u64, max_items: u32, max_shards: u32) -> ShardBounds {
        let mut bounds = ShardBounds::default();
        (bounds.target_bytes.0, bounds.max_items, bounds.max_shards) = (target_bytes, max_items, max_shards);
        bounds
    }

    fn items(sizes: &[u64]) -> Vec<Item> {
        let of = |(index, bytes): (usize, &u64)| Item {
            path: format!("/in/{index:05}"),
            name: format!("{index:05}"),
            bytes: *bytes,
            text: false,
        };
        sizes.iter().enumerate().map(of).collect()
    }

    fn balanced(sizes: &[u64], bounds: &ShardBounds) -> Vec<Vec<Item>> {
        let items = items(sizes);
        let shards = balance(&items.iter().collect::<Vec<_>>(), bounds).unwrap();
        shards.into_iter().map(|shard| shard.into_iter().cloned().collect()).collect()
    }

    fn sum(shard: &[Item]) -> u128 {
        shard.iter().map(|item| u128::from(item.bytes)).sum()
    }

    #[test]
    fn the_number_of_shards_follows_bytes_and_items_within_bounds() {
        let count = |sizes: &[u64], bounds| shard_count(sizes.iter().copied(), &bounds);
        assert_eq!(count(&[10; 10], bounds(25, 100, 100)), 4, "by bytes");
        assert_eq!(count(&[10; 10], bounds(1000, 3, 100)), 4, "by items");
        assert_eq!(count(&[10; 10], bounds(1, 100, 5)), 5, "at most max_shards");
        assert_eq!(count(&[10; 10], bounds(1, 100, 100)), 10, "at most one an item");
        assert_eq!(count(&[0; 10], bounds(1, 100, 100)), 1, "at least one");
        assert_eq!(count(&[], bounds(1, 100, 100)), 0);
        assert_eq!(count(&[u64::MAX; 3], bounds(u64::MAX, 100, 100)), 3, "sums do not overflow");
    }

    #[test]
    fn a_huge_item_does_not_scatter_the_small_ones() {
        let mut sizes = vec![1; 99];
        sizes.push(1 << 40);
        let shards = balanced(&sizes, &bounds(1 << 20, 1000, 1000));
        let mut lengths: Vec<_> = shards.iter().map(Vec::len).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [1, 99]);
    }

    #[test]
    fn more_items_than_the_shards_can_hold_are_refused() {
        let items = items(&[1; 7]);
        let items: Vec<_> = items.iter().collect();
        assert!(balance(&items, &bounds(1, 3, 2)).is_none());
        assert_eq!(balance(&items[..6], &bounds(1, 3, 2)).unwrap().len(), 2);
    }

    #[test]
    fn a_full_shard_takes_no_more_though_it_is_the_smallest() {
        let mut sizes = vec![100];
        sizes.extend([1; 5]);
        let shards = balanced(&sizes, &bounds(53, 3, 2));
        assert!(shards.iter().all(|shard| shard.len() == 3), "{shards:?}");
    }

    /// The least possible size of the largest shard, by trying everything.
    fn best_possible(sizes: &[u64], loads: &mut [u128]) -> u128 {
        let Some((first, rest)) = sizes.split_first() else {
            return loads.iter().copied().max().unwrap_or(0);
        };
        let mut best = u128::MAX;
        for shard in 0..loads.len() {
            loads[shard] += u128::from(*first);
            best = best.min(best_possible(rest, loads));
            loads[shard] -= u128::from(*first);
        }
        best
    }

    fn sizes() -> impl Strategy<Value = Vec<u64>> {
        let skewed = (0u32..40, any::<u32>()).prop_map(|(shift, bits)| u64::from(bits) << 24 >> shift);
        prop_oneof![
            proptest::collection::vec(0u64..20, 1..60),
            proptest::collection::vec(skewed, 1..60),
            proptest::collection::vec(any::<u64>(), 1..60),
        ]
    }

    proptest! {
        #[test]
        fn every_item_is_in_one_shard_and_bounds_hold(
            sizes in sizes(), target in 1u64..200, max_items in 1u32..20, max_shards in 1u32..80,
        ) {
            let bounds = bounds(target, max_items, max_shards);
            let items = items(&sizes);
            let all: Vec<_> = items.iter().collect();
            let Some(shards) = balance(&all, &bounds) else {
                prop_assert!(sizes.len() as u64 > u64::from(max_items) * u64::from(max_shards));
                return Ok(());
            };
            let mut names: Vec<_> = shards.iter().flatten().map(|item| &item.name).collect();
            names.sort_unstable();
            prop_assert_eq!(names, items.iter().map(|item| &item.name).collect::<Vec<_>>());
            prop_assert!(shards.len() <= max_shards as usize);
            for shard in &shards {
                prop_assert!((1..=max_items as usize).contains(&shard.len()));
                prop_assert!(shard.is_sorted_by(|a, b| a.name < b.name));
            }
        }

        #[test]
        fn largest_and_smallest_shard_differ_by_at_most_the_largest_item(
            sizes in sizes(), target in 1u64..200, max_items in 1u32..20,
        ) {
            let shards = balanced(&sizes, &bounds(target, max_items, 1000));
            let loads: Vec<u128> = shards.iter().map(|shard| sum(shard)).collect();
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            prop_assert!(most - least <= u128::from(*sizes.iter().max().unwrap()), "{loads:?}");
        }

        #[test]
        fn grahams_bound_holds_against_the_best_possible(
            sizes in proptest::collection::vec(0u64..50, 1..8), max_shards in 1u32..4,
        ) {
            let shards = balanced(&sizes, &bounds(1, 100, max_shards));
            let (count, most) = (shards.len() as u128, shards.iter().map(|shard| sum(shard)).max().unwrap());
            let best = best_possible(&sizes, &mut vec![0; shards.len()]);
            // most <= (4/3 - 1/(3 count)) best, in whole numbers.
            prop_assert!(3 * count * most <= (4 * count - 1) * best, "{most} of {best}");
        }
    }
}
