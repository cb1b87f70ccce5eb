//! What is ready, in the order of release: priority first, then tenants in turn, then the order of admission.
//!
//! Ready shards are kept as ranges, so that a request of a hundred thousand costs as much as one of ten.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use forecastle_protos::ids::{RequestId, ShardId};
use forecastle_resources::Priority;

use crate::ledger::{ReadyRange, RequestHead};

/// The backlog of every request.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    requests: HashMap<RequestId, Entry>,
    order: BTreeMap<Priority, Tenants>,
}

#[derive(Debug)]
struct Entry {
    head: Arc<RequestHead>,
    ranges: VecDeque<ReadyRange>,
}

/// Tenants in turn; each with its requests by order of admission.
#[derive(Debug, Default)]
struct Tenants {
    turn: VecDeque<String>,
    requests: HashMap<String, BTreeMap<i64, RequestId>>,
}

impl Backlog {
    /// Adds shards of a request. Those that failed before go first: they have waited longest.
    pub(super) fn add(&mut self, head: &Arc<RequestHead>, range: ReadyRange) {
        let entry = self.requests.entry(head.id).or_insert_with(|| {
            let tenants = self.order.entry(head.priority).or_default();
            if !tenants.requests.contains_key(&head.tenant) {
                tenants.turn.push_back(head.tenant.clone());
            }
            tenants.requests.entry(head.tenant.clone()).or_default().insert(head.seq, head.id);
            Entry { head: Arc::clone(head), ranges: VecDeque::new() }
        });
        if range.count == 1 {
            entry.ranges.push_front(range);
        } else {
            entry.ranges.push_back(range);
        }
    }

    /// Forgets a request that has ended.
    pub(super) fn forget(&mut self, request: RequestId) {
        let Some(entry) = self.requests.remove(&request) else { return };
        if let Some(tenants) = self.order.get_mut(&entry.head.priority)
            && let Some(requests) = tenants.requests.get_mut(&entry.head.tenant)
        {
            requests.remove(&entry.head.seq);
            if requests.is_empty() {
                tenants.requests.remove(&entry.head.tenant);
                tenants.turn.retain(|tenant| *tenant != entry.head.tenant);
            }
        }
    }

    /// The requests that have something ready, in the order in which they may release next: of each priority, the
    /// oldest of each tenant, then the next of each. The tenant that comes first now comes last the next time.
    pub(super) fn turns(&mut self) -> Vec<Arc<RequestHead>> {
        let mut turns = Vec::new();
        for tenants in self.order.values_mut() {
            let mut queues: Vec<_> =
                tenants.turn.iter().filter_map(|tenant| tenants.requests.get(tenant)).map(|r| r.values()).collect();
            while !queues.is_empty() {
                queues.retain_mut(|queue| match queue.next().and_then(|id| self.requests.get(id)) {
                    Some(entry) => {
                        turns.push(Arc::clone(&entry.head));
                        true
                    }
                    None => false,
                });
            }
            tenants.turn.rotate_left(usize::from(!tenants.turn.is_empty()));
        }
        turns
    }

    /// Takes up to `most` shards of a request.
    pub(super) fn take(&mut self, request: RequestId, most: u32) -> Vec<ShardId> {
        let mut taken = Vec::new();
        let Some(entry) = self.requests.get_mut(&request) else { return taken };
        let mut left = most;
        while left > 0
            && let Some(range) = entry.ranges.front_mut()
        {
            let count = range.count.min(left);
            taken.extend((range.first..range.first + count).map(|index| ShardId {
                request,
                stage: range.stage,
                index,
            }));
            left -= count;
            range.first += count;
            range.count -= count;
            if range.count == 0 {
                entry.ranges.pop_front();
            }
        }
        if entry.ranges.is_empty() {
            self.forget(request);
        }
        taken
    }

    /// How many shards of each request are ready.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&RequestHead, u64)> {
        self.requests
            .values()
            .map(|entry| (&*entry.head, entry.ranges.iter().map(|range| u64::from(range.count)).sum()))
    }

    /// How many shards are ready.
    pub(super) fn len(&self) -> u64 {
        self.counts().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_protos::v1;
    use proptest::prelude::*;

    fn head(seq: i64, tenant: &str, priority: Priority) -> Arc<RequestHead> {
        Arc::new(RequestHead {
            id: RequestId::new(),
            seq,
            tenant: tenant.to_owned(),
            request_type: String::new(),
            fleet: String::new(),
            priority,
            deadline_ms: None,
            created_ms: 0,
            body: v1::SubmitRequest::default(),
        })
    }

    fn range(head: &RequestHead, first: u32, count: u32) -> ReadyRange {
        ReadyRange { request: head.id, stage: 0, first, count }
    }

    #[test]
    fn urgent_goes_first_and_tenants_take_turns() {
        let mut backlog = Backlog::default();
        let many: Vec<_> = (0..3).map(|seq| head(seq, "many", Priority::Standard)).collect();
        let one = head(3, "one", Priority::Standard);
        let urgent = head(4, "many", Priority::Urgent);
        for head in many.iter().chain([&one, &urgent]) {
            backlog.add(head, range(head, 0, 5));
        }
        let seqs = |turns: Vec<Arc<RequestHead>>| turns.iter().map(|h| h.seq).collect::<Vec<_>>();
        assert_eq!(seqs(backlog.turns()), [4, 0, 3, 1, 2]);
        assert_eq!(seqs(backlog.turns()), [4, 3, 0, 1, 2]);
        backlog.forget(many[0].id);
        backlog.forget(urgent.id);
        assert_eq!(seqs(backlog.turns()), [1, 3, 2]);
    }

    proptest! {
        #[test]
        fn every_shard_is_taken_once(
            ranges in proptest::collection::vec((0usize..3, 1u32..50), 1..20), most in 1u32..40,
        ) {
            let heads: Vec<_> = (0..3).map(|seq| head(seq, &format!("t{}", seq % 2), Priority::Batch)).collect();
            let mut backlog = Backlog::default();
            let mut next = [0u32; 3];
            for (request, count) in ranges {
                backlog.add(&heads[request], range(&heads[request], next[request], count));
                next[request] += count;
            }
            prop_assert_eq!(backlog.len(), u64::from(next.iter().sum::<u32>()));
            let mut taken = Vec::new();
            while let Some(head) = backlog.turns().first() {
                let shards = backlog.take(head.id, most);
                prop_assert!(!shards.is_empty() && shards.len() <= most as usize);
                taken.extend(shards);
            }
            taken.sort();
            taken.dedup();
            prop_assert_eq!(taken.len(), next.iter().sum::<u32>() as usize);
            prop_assert_eq!(backlog.len(), 0);
        }
    }
}
