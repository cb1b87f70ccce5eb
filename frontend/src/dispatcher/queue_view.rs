//! What the dispatcher shows of itself: queues as it knows them, and what waits. A snapshot for people, not a truth
//! that decides anything.

use std::collections::BTreeMap;

use forecastle_protos::{names, v1};
use forecastle_resources::Priority;

use super::window::QueueLevel;

/// The queues and the backlog at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueView {
    /// By fleet, priority and class.
    pub queues: Vec<v1::QueueStatus>,
    /// By fleet and priority; those of which nothing waits are left out.
    pub backlog: Vec<v1::BacklogStatus>,
}

/// Counts of shards that are not released, by fleet and priority.
#[derive(Debug, Default)]
pub(super) struct Waiting(BTreeMap<(String, Priority), Counts>);

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    ready: u64,
    held_back: u64,
    backing_off: u64,
}

impl Waiting {
    fn of(&mut self, fleet: &str, priority: Priority) -> &mut Counts {
        self.0.entry((fleet.to_owned(), priority)).or_default()
    }

    /// They wait for their turn and for room.
    pub(super) fn ready(&mut self, fleet: &str, priority: Priority, count: u64) {
        self.of(fleet, priority).ready += count;
    }

    /// No live worker could run them.
    pub(super) fn held_back(&mut self, fleet: &str, priority: Priority, count: u64) {
        self.of(fleet, priority).held_back += count;
    }

    /// They wait before another attempt.
    pub(super) fn backing_off(&mut self, fleet: &str, priority: Priority, count: u64) {
        self.of(fleet, priority).backing_off += count;
    }
}

impl QueueView {
    /// Of these queues and these counts.
    pub(super) fn new<'a>(queues: impl Iterator<Item = (&'a str, QueueLevel)>, waiting: Waiting) -> Self {
        let mut known: Vec<_> = queues
            .filter_map(|(queue, level)| {
                let (fleet, priority, class) = names::parse_shard_queue(queue)?;
                let status = v1::QueueStatus {
                    queue: queue.to_owned(),
                    fleet: fleet.to_owned(),
                    priority: priority.to_string(),
                    size_class: class.to_string(),
                    unclaimed: level.unclaimed,
                    released: level.released,
                    claims_per_second: level.claims_per_second,
                };
                Some(((fleet.to_owned(), priority, class), status))
            })
            .collect();
        known.sort_by(|(a, _), (b, _)| a.cmp(b));
        let backlog = waiting.0.into_iter().map(|((fleet, priority), counts)| v1::BacklogStatus {
            fleet,
            priority: priority.to_string(),
            ready: counts.ready,
            held_back: counts.held_back,
            backing_off: counts.backing_off,
        });
        Self { queues: known.into_iter().map(|(_, status)| status).collect(), backlog: backlog.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_resources::SizeClass;

    #[test]
    fn queues_and_backlog_are_ordered_by_fleet_then_priority() {
        let level = |unclaimed| QueueLevel { unclaimed, released: 9, claims_per_second: 0.5 };
        let names = [
            names::shard_queue("b", Priority::Urgent, SizeClass::S),
            names::shard_queue("a", Priority::Batch, SizeClass::L),
            names::shard_queue("a", Priority::Urgent, SizeClass::Xl),
            "amq.gen-1".to_owned(),
        ];
        let mut waiting = Waiting::default();
        waiting.ready("b", Priority::Standard, 3);
        waiting.held_back("a", Priority::Batch, 2);
        waiting.backing_off("a", Priority::Batch, 1);
        let view = QueueView::new(names.iter().map(String::as_str).zip([1, 2, 3, 4].map(level)), waiting);
        let queues: Vec<_> =
            view.queues.iter().map(|q| (&*q.fleet, &*q.priority, &*q.size_class, q.unclaimed)).collect();
        assert_eq!(queues, [("a", "urgent", "xl", 3), ("a", "batch", "l", 2), ("b", "urgent", "s", 1)]);
        let backlog: Vec<_> = view.backlog.iter().map(|b| (&*b.fleet, b.ready, b.held_back, b.backing_off)).collect();
        assert_eq!(backlog, [("a", 0, 2, 1), ("b", 3, 0, 0)]);
    }
}
