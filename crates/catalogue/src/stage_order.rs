//! The order of stages: each after those it depends on.

use std::collections::BTreeSet;

/// Orders nodes so that each follows those it depends on, else in their given order (Kahn's algorithm, always taking
/// the first that is free). `depends_on[i]` holds the nodes that node `i` waits for; positions beyond the end are
/// ignored. On failure, answers one cycle, its first node repeated at the end.
pub(crate) fn order(depends_on: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let count = depends_on.len();
    let mut waits_for: Vec<BTreeSet<usize>> =
        depends_on.iter().map(|nodes| nodes.iter().copied().filter(|node| *node < count).collect()).collect();
    let mut remaining: BTreeSet<usize> = (0..count).collect();
    let mut ordered = Vec::with_capacity(count);
    while let Some(next) = remaining.iter().copied().find(|node| waits_for[*node].is_empty()) {
        remaining.remove(&next);
        ordered.push(next);
        for node in &remaining {
            waits_for[*node].remove(&next);
        }
    }
    // Every node that remains waits for one that remains: walking on must come back.
    let Some(start) = remaining.first() else { return Ok(ordered) };
    let mut walk = vec![*start];
    loop {
        let last = walk[walk.len() - 1];
        let Some(next) = waits_for[last].first().copied() else { return Ok(ordered) };
        let seen = walk.iter().position(|node| *node == next);
        walk.push(next);
        if let Some(from) = seen {
            return Err(walk.split_off(from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keeps_the_given_order_where_it_can() {
        assert_eq!(order(&[vec![], vec![], vec![]]), Ok(vec![0, 1, 2]));
        assert_eq!(order(&[vec![2], vec![], vec![]]), Ok(vec![1, 2, 0]));
        assert_eq!(order(&[]), Ok(vec![]));
    }

    #[test]
    fn names_a_cycle() {
        assert_eq!(order(&[vec![0]]), Err(vec![0, 0]));
        assert_eq!(order(&[vec![], vec![3], vec![1], vec![2]]), Err(vec![1, 3, 2, 1]));
        assert_eq!(order(&[vec![1], vec![2], vec![1]]), Err(vec![1, 2, 1]));
    }

    proptest! {
        #[test]
        fn an_order_respects_every_dependency_and_a_cycle_is_one(
            graph in proptest::collection::vec(proptest::collection::vec(0usize..8, 0..3), 0..8),
        ) {
            match order(&graph) {
                Ok(ordered) => {
                    let place = |node| ordered.iter().position(|other| *other == node);
                    prop_assert_eq!(ordered.len(), graph.len());
                    for (node, dependencies) in graph.iter().enumerate() {
                        for dependency in dependencies.iter().filter(|d| **d < graph.len()) {
                            prop_assert!(place(*dependency) < place(node));
                        }
                    }
                }
                Err(cycle) => {
                    prop_assert_eq!(cycle.first(), cycle.last());
                    prop_assert!(cycle.len() > 1);
                    for pair in cycle.windows(2) {
                        prop_assert!(graph[pair[0]].contains(&pair[1]));
                    }
                }
            }
        }
    }
}
