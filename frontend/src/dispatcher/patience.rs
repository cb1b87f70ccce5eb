//! How long a shard waits for a worker that is large enough. Pure.
//!
//! Somebody may be starting a larger worker, so a shard that is too large for every live one waits for a while; then it
//! is infeasible. One that nobody knows, or for which nobody is there, waits as long as it takes.

use std::collections::HashMap;
use std::time::Duration;

use forecastle_protos::ids::{RequestId, ShardId};
use tokio::time::Instant;

/// What is too large for every live worker: of each request the first such shard, whose end is the request's.
#[derive(Debug)]
pub(super) struct Patience {
    /// `None` waits for ever.
    limit: Option<Duration>,
    waiting: HashMap<RequestId, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    shard: ShardId,
    since: Instant,
    why: String,
}

impl Patience {
    /// Waits for `limit`; zero is for ever.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit: Some(limit).filter(|limit| !limit.is_zero()), waiting: HashMap::new() }
    }

    /// A shard was found to be too large for everybody.
    pub(super) fn too_large(&mut self, shard: ShardId, why: &impl ToString, now: Instant) {
        let waiting =
            self.waiting.entry(shard.request).or_insert_with(|| Waiting { shard, since: now, why: String::new() });
        if waiting.shard == shard {
            waiting.why = why.to_string();
        }
    }

    /// A shard was found to fit somewhere, or to wait for something else.
    pub(super) fn is_not(&mut self, shard: ShardId) {
        if self.waiting.get(&shard.request).is_some_and(|waiting| waiting.shard == shard) {
            self.waiting.remove(&shard.request);
        }
    }

    /// The request has ended.
    pub(super) fn forget(&mut self, request: RequestId) {
        self.waiting.remove(&request);
    }

    /// What has waited too long, and why. It is not told again.
    pub(super) fn exhausted(&mut self, now: Instant) -> Vec<(ShardId, String)> {
        let Some(limit) = self.limit else { return Vec::new() };
        let over = |waiting: &Waiting| now.saturating_duration_since(waiting.since) >= limit;
        self.waiting.extract_if(|_, waiting| over(waiting)).map(|(_, waiting)| (waiting.shard, waiting.why)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_too_large_is_given_up_once_and_what_fits_again_is_not() {
        let shard = |index| ShardId { request: RequestId::new(), stage: 0, index };
        let (large, relieved) = (shard(0), shard(1));
        let start = Instant::now();
        let mut patience = Patience::new(Duration::from_mins(1));
        for second in 0..60 {
            patience.too_large(large, &"too large", start + Duration::from_secs(second));
            patience.too_large(relieved, &"too large", start + Duration::from_secs(second));
            assert!(patience.exhausted(start + Duration::from_secs(second)).is_empty());
        }
        patience.is_not(relieved);
        assert_eq!(patience.exhausted(start + Duration::from_mins(1)), [(large, "too large".to_owned())]);
        assert!(patience.exhausted(start + Duration::from_mins(9)).is_empty());

        let mut endless = Patience::new(Duration::ZERO);
        endless.too_large(large, &"too large", start);
        assert!(endless.exhausted(start + Duration::from_hours(99)).is_empty());
    }
}
