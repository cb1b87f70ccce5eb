//! Suspicions: what looks wrong becomes certain only by looking again.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// The fewest looks that make a suspicion certain. A load report and the depth of a queue are of different moments: a
/// message that moves between them is seen in neither, but hardly three times in a row.
const LOOKS: u32 = 3;

/// What looked wrong at every look since some time.
#[derive(Debug)]
pub(super) struct Suspicions<K>(HashMap<K, Suspicion>);

#[derive(Debug, Clone, Copy)]
struct Suspicion {
    since: Instant,
    looks: u32,
}

impl<K> Default for Suspicions<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Copy> Suspicions<K> {
    /// Takes note of a look, in which all of `suspects` and nothing else looked wrong. Answers with those that have
    /// looked wrong at [`LOOKS`] looks in a row and for `grace`, each with how long.
    pub(super) fn look(
        &mut self,
        suspects: impl IntoIterator<Item = K>,
        grace: Duration,
        now: Instant,
    ) -> HashMap<K, Duration> {
        let mut still = HashMap::new();
        let mut certain = HashMap::new();
        for key in suspects {
            let before = self.0.get(&key).copied().unwrap_or(Suspicion { since: now, looks: 0 });
            let suspicion = Suspicion { looks: before.looks.saturating_add(1), ..before };
            let lasting = now.saturating_duration_since(suspicion.since);
            if suspicion.looks >= LOOKS && lasting >= grace {
                certain.insert(key, lasting);
            }
            still.insert(key, suspicion);
        }
        self.0 = still;
        certain
    }

    /// Suspects nothing any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_wrong_often_and_for_long_is_certain() {
        let (start, grace) = (Instant::now(), Duration::from_secs(10));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut suspicions = Suspicions::default();
        let mut certain = |suspects: &[u8], seconds| {
            let mut found: Vec<_> = suspicions.look(suspects.iter().copied(), grace, at(seconds)).into_keys().collect();
            found.sort_unstable();
            found
        };
        assert_eq!(certain(&[1, 2], 0), [0; 0]);
        assert_eq!(certain(&[1, 2, 3], 30), [0; 0], "long enough, but seen twice only");
        assert_eq!(certain(&[1, 3], 31), [1], "2 looked well once");
        assert_eq!(certain(&[1, 2, 3], 39), [1], "3 was seen three times, but not for long enough");
        assert_eq!(certain(&[1, 2, 3], 40), [1, 3]);
        assert_eq!(certain(&[2], 49), [2], "suspected anew since 39");
        assert_eq!(certain(&[3], 60), [0; 0], "3 looked well meanwhile: it begins anew");
    }
}
