//! Forecastle's exchanges and queues: the one description that frontends, workers and producers declare from. Whoever
//! declares an object with other arguments than another is refused by the broker, so nobody else spells them.

use std::time::Duration;

use forecastle_protos::ids::LedgerId;
use forecastle_protos::names;
use forecastle_resources::{Priority, SizeClass};

use crate::topology::{DeadLetter, Exchange, ExchangeKind, Queue, QueueKind, Topology};

/// Explicit on every broker version, and so high that it never decides: the ledger counts poison, not the broker.
/// (Requeueing counts towards it on 3.10 and on 4.0 to 4.2.)
pub const DELIVERY_LIMIT: u32 = 1_000_000;

/// The most requests that wait for a frontend; publishes beyond are refused, so that producers slow down.
pub const REQUESTS_MAX_LENGTH: u32 = 1_000_000;

/// The most refused requests that are kept for people to look at.
pub const REJECTED_MAX_LENGTH: u32 = 100_000;

/// How long a delivery may stay unsettled. Offers are held for seconds and nothing unsettled outlives a claim, so an
/// hour means that something is broken.
const CONSUMER_TIMEOUT: Duration = Duration::from_hours(1);

fn quorum(name: impl Into<String>, max_length: Option<u32>, dead_letter: Option<DeadLetter>) -> Queue {
    Queue {
        name: name.into(),
        kind: QueueKind::Quorum {
            max_length,
            delivery_limit: DELIVERY_LIMIT,
            dead_letter,
            consumer_timeout: Some(CONSUMER_TIMEOUT),
        },
        bindings: Vec::new(),
    }
}

fn exclusive(name: impl Into<String>, exchange: &str, max_length: u32) -> Queue {
    Queue {
        name: name.into(),
        kind: QueueKind::Exclusive { max_length },
        bindings: vec![(exchange.to_owned(), String::new())],
    }
}

/// What producers publish to, and where refused requests go.
pub fn requests() -> Topology {
    Topology {
        exchanges: Vec::new(),
        queues: vec![
            quorum(names::REQUESTS, Some(REQUESTS_MAX_LENGTH), None),
            quorum(names::REJECTED, Some(REJECTED_MAX_LENGTH), None),
        ],
    }
}

/// The exchange of shards, where what it cannot route goes, and the queues of some fleets.
pub fn shards<'a>(fleets: impl IntoIterator<Item = &'a str>) -> Topology {
    let returned =
        Queue { bindings: vec![(names::RETURNED.to_owned(), String::new())], ..quorum(names::RETURNED, None, None) };
    let mut queues = vec![returned];
    for fleet in fleets {
        for (priority, class) in Priority::ALL.into_iter().flat_map(|p| SizeClass::ALL.map(|c| (p, c))) {
            let name = names::shard_queue(fleet, priority, class);
            let back = DeadLetter { exchange: names::RETURNED.to_owned(), routing_key: String::new() };
            queues.push(Queue {
                bindings: vec![(names::SHARDS.to_owned(), name.clone())],
                ..quorum(name, None, Some(back))
            });
        }
    }
    Topology {
        exchanges: vec![
            Exchange { name: names::RETURNED.to_owned(), kind: ExchangeKind::Fanout, alternate: None },
            Exchange {
                name: names::SHARDS.to_owned(),
                kind: ExchangeKind::Direct,
                alternate: Some(names::RETURNED.to_owned()),
            },
        ],
        queues,
    }
}

/// The queue through which workers answer a ledger.
pub fn completions(ledger: LedgerId) -> Topology {
    Topology { exchanges: Vec::new(), queues: vec![quorum(names::completions_queue(ledger), None, None)] }
}

/// The fanouts between frontend and workers.
pub fn fanouts() -> Topology {
    let fanout = |name: &str| Exchange { name: name.to_owned(), kind: ExchangeKind::Fanout, alternate: None };
    Topology { exchanges: vec![fanout(names::LOAD), fanout(names::CONTROL)], queues: Vec::new() }
}

/// A listener's own queue of load reports.
pub fn load_listener(queue: impl Into<String>) -> Topology {
    Topology { queues: vec![exclusive(queue, names::LOAD, 10_000)], ..fanouts() }
}

/// A worker's own queue of control messages.
pub fn control_listener(queue: impl Into<String>) -> Topology {
    Topology { queues: vec![exclusive(queue, names::CONTROL, 10_000)], ..fanouts() }
}

/// The claim of the one active frontend: a queue that only one connection of a virtual host can have.
pub fn owner() -> Topology {
    Topology {
        exchanges: Vec::new(),
        queues: vec![Queue {
            name: names::OWNER.to_owned(),
            kind: QueueKind::Exclusive { max_length: 1 },
            bindings: Vec::new(),
        }],
    }
}

impl Topology {
    /// This and `other`, declared together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.exchanges.extend(other.exchanges.into_iter().filter(|e| !self.exchanges.contains(e)).collect::<Vec<_>>());
        self.queues.extend(other.queues.into_iter().filter(|q| !self.queues.contains(q)).collect::<Vec<_>>());
        self
    }
}
