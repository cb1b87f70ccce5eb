//! Names of exchanges and queues. Nothing else in the workspace spells them.

use forecastle_resources::{Priority, SizeClass};

use crate::ids::LedgerId;

/// The queue (and default-exchange routing key) that producers publish requests to.
pub const REQUESTS: &str = "forecastle.requests";

/// The queue for requests that were refused, each with the reason in its headers.
pub const REJECTED: &str = "forecastle.requests.rejected";

/// The direct exchange that shards are published to; the routing key is the queue's name.
pub const SHARDS: &str = "forecastle.shards";

/// The alternate exchange and queue of shards that could not be routed, read or delivered.
pub const RETURNED: &str = "forecastle.returned";

/// The fanout exchange of load reports.
pub const LOAD: &str = "forecastle.load";

/// The fanout exchange of control messages.
pub const CONTROL: &str = "forecastle.control";

/// The queue that the one active frontend of a virtual host holds exclusively.
pub const OWNER: &str = "forecastle.owner";

/// The queue of one fleet, priority and size class.
pub fn shard_queue(fleet: &str, priority: Priority, class: SizeClass) -> String {
    format!("{SHARDS}.{fleet}.{priority}.{class}")
}

/// What a queue of shards is for, by its name; `None` for what is no queue of shards.
pub fn parse_shard_queue(queue: &str) -> Option<(&str, Priority, SizeClass)> {
    let (rest, class) = queue.strip_prefix(SHARDS)?.strip_prefix('.')?.rsplit_once('.')?;
    let (fleet, priority) = rest.rsplit_once('.')?;
    Some((fleet, priority.parse().ok()?, class.parse().ok()?)).filter(|_| is_valid_fleet(fleet))
}

/// The queue through which workers answer one ledger.
pub fn completions_queue(ledger: LedgerId) -> String {
    format!("forecastle.completions.{ledger}")
}

/// True if `fleet` may stand in a queue's name: 1 to 64 of `a-z`, `0-9` and `-`.
pub fn is_valid_fleet(fleet: &str) -> bool {
    (1..=64).contains(&fleet.len()) && fleet.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_of_shards_says_what_it_is_for() {
        for priority in Priority::ALL {
            for class in SizeClass::ALL {
                let queue = shard_queue("gpu-2", priority, class);
                assert_eq!(parse_shard_queue(&queue), Some(("gpu-2", priority, class)));
            }
        }
        for other in
            ["", "forecastle.shards", "forecastle.shards.a.urgent", "forecastle.shards.a.soon.s", "x.a.urgent.s"]
        {
            assert_eq!(parse_shard_queue(other), None, "{other}");
        }
        assert_eq!(parse_shard_queue("forecastle.shards.a.b.urgent.s"), None, "no fleet has a dot");
    }
}
