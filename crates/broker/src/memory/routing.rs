//! Exchanges, queues and bindings in memory, and what becomes of a published message.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::delivery::Channel;
use crate::{Address, DeadLetter, Error, Exchange, ExchangeKind, Message, PublishOutcome, Queue, QueueKind, Topology};

/// A connection's number.
pub(super) type ConnectionId = u64;

/// A message in a queue.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) message: Message,
    pub(super) to: Address,
    pub(super) redelivered: bool,
    /// How often it came back unsettled or requeued; what the delivery limit counts.
    pub(super) returns: u32,
}

#[derive(Debug)]
struct ExchangeState {
    exchange: Exchange,
    /// Routing key and queue.
    bindings: BTreeSet<(String, String)>,
}

#[derive(Debug)]
pub(super) struct QueueState {
    pub(super) kind: QueueKind,
    /// Of an exclusive queue.
    owner: Option<ConnectionId>,
    pub(super) ready: VecDeque<Stored>,
}

/// Everything that the broker in memory knows. Methods that may free deliveries hand them out, since a delivery that
/// is dropped comes back to lock this.
#[derive(Debug, Default)]
pub(super) struct State {
    exchanges: BTreeMap<String, ExchangeState>,
    pub(super) queues: BTreeMap<String, QueueState>,
    pub(super) channels: BTreeMap<u64, Channel>,
    pub(super) last_id: u64,
    /// Dead letters whose target does not exist yet: at least once means to keep them.
    homeless: Vec<(DeadLetter, Stored)>,
}

fn refused(object: &str, reason: impl Into<String>) -> Error {
    Error::Refused { object: object.to_owned(), reason: reason.into() }
}

impl State {
    /// Declares everything, in order; stops at the first that is refused.
    pub(super) fn declare(&mut self, owner: ConnectionId, topology: &Topology) -> Result<(), Error> {
        for exchange in &topology.exchanges {
            match self.exchanges.get(&exchange.name) {
                Some(known) if known.exchange == *exchange => {}
                Some(_) => {
                    let reason = format!("PRECONDITION_FAILED - inequivalent arg for exchange '{}'", exchange.name);
                    return Err(refused(&exchange.name, reason));
                }
                None => {
                    let state = ExchangeState { exchange: exchange.clone(), bindings: BTreeSet::new() };
                    self.exchanges.insert(exchange.name.clone(), state);
                }
            }
        }
        for queue in &topology.queues {
            self.declare_queue(owner, queue)?;
        }
        for (target, stored) in std::mem::take(&mut self.homeless) {
            self.send_dead_letter(target, stored);
        }
        Ok(())
    }

    fn declare_queue(&mut self, owner: ConnectionId, queue: &Queue) -> Result<(), Error> {
        let exclusive = matches!(queue.kind, QueueKind::Exclusive { .. });
        if let Some(known) = self.queues.get(&queue.name) {
            if known.owner.is_some_and(|known| known != owner) {
                return Err(refused(&queue.name, format!("RESOURCE_LOCKED - queue '{}' is exclusive", queue.name)));
            }
            if known.kind != queue.kind {
                let reason = format!("PRECONDITION_FAILED - inequivalent arg for queue '{}'", queue.name);
                return Err(refused(&queue.name, reason));
            }
        } else {
            let state =
                QueueState { kind: queue.kind.clone(), owner: exclusive.then_some(owner), ready: VecDeque::new() };
            self.queues.insert(queue.name.clone(), state);
        }
        for (exchange, key) in &queue.bindings {
            let Some(source) = self.exchanges.get_mut(exchange) else {
                return Err(refused(&queue.name, format!("NOT_FOUND - no exchange '{exchange}'")));
            };
            source.bindings.insert((key.clone(), queue.name.clone()));
        }
        // Consumers that lost it are still there.
        self.dispatch(&queue.name);
        Ok(())
    }

    /// Checks that a connection may use a queue.
    pub(super) fn usable(&self, connection: ConnectionId, queue: &str) -> Result<&QueueState, Error> {
        let state = self.queues.get(queue).ok_or_else(|| refused(queue, format!("NOT_FOUND - no queue '{queue}'")))?;
        if state.owner.is_some_and(|owner| owner != connection) {
            return Err(refused(queue, format!("RESOURCE_LOCKED - queue '{queue}' is exclusive")));
        }
        Ok(state)
    }

    /// Removes a queue and its bindings.
    pub(super) fn delete_queue(&mut self, queue: &str) {
        self.queues.remove(queue);
        for exchange in self.exchanges.values_mut() {
            exchange.bindings.retain(|(_, bound)| bound != queue);
        }
    }

    /// The exclusive queues of a connection.
    pub(super) fn owned(&self, connection: ConnectionId) -> Vec<String> {
        let own = self.queues.iter().filter(|(_, queue)| queue.owner == Some(connection));
        own.map(|(name, _)| name.clone()).collect()
    }

    /// Routes a message as the broker does one that is published as mandatory.
    pub(super) fn publish(&mut self, to: &Address, message: &Message) -> PublishOutcome {
        if !to.exchange.is_empty() && !self.exchanges.contains_key(&to.exchange) {
            // RabbitMQ closes the channel, so that the publisher never hears of this message.
            return PublishOutcome::Unknown { reason: format!("NOT_FOUND - no exchange '{}'", to.exchange) };
        }
        let queues = self.route(to);
        if queues.is_empty() {
            return PublishOutcome::Returned { reason: "NO_ROUTE".to_owned() };
        }
        let mut outcome = PublishOutcome::Confirmed;
        for name in queues {
            let Some(queue) = self.queues.get_mut(&name) else { continue };
            match &queue.kind {
                QueueKind::Quorum { max_length: Some(most), .. } if queue.ready.len() >= *most as usize => {
                    outcome = PublishOutcome::Nacked;
                    continue;
                }
                QueueKind::Exclusive { max_length } if queue.ready.len() >= *max_length as usize => {
                    queue.ready.pop_front();
                }
                _ => {}
            }
            let stored = Stored { message: message.clone(), to: to.clone(), redelivered: false, returns: 0 };
            queue.ready.push_back(stored);
            self.dispatch(&name);
        }
        outcome
    }

    /// The queues that a message goes to, by way of alternate exchanges where nothing else takes it.
    fn route(&self, to: &Address) -> Vec<String> {
        if to.exchange.is_empty() {
            return self.queues.contains_key(&to.routing_key).then(|| to.routing_key.clone()).into_iter().collect();
        }
        let (mut seen, mut next) = (BTreeSet::new(), Some(to.exchange.as_str()));
        while let Some(state) = next.filter(|name| seen.insert(*name)).and_then(|name| self.exchanges.get(name)) {
            let takes = |key: &str| state.exchange.kind == ExchangeKind::Fanout || key == to.routing_key;
            let queues: BTreeSet<&String> =
                state.bindings.iter().filter(|(key, _)| takes(key)).map(|(_, queue)| queue).collect();
            if !queues.is_empty() {
                return queues.into_iter().cloned().collect();
            }
            next = state.exchange.alternate.as_deref();
        }
        Vec::new()
    }

    /// What a queue does with a message that is rejected or was returned too often.
    pub(super) fn dead_letter(&mut self, queue: &str, stored: Stored) {
        if let Some(QueueKind::Quorum { dead_letter: Some(target), .. }) = self.queues.get(queue).map(|q| &q.kind) {
            self.send_dead_letter(target.clone(), stored);
        }
    }

    fn send_dead_letter(&mut self, target: DeadLetter, stored: Stored) {
        let to = Address { exchange: target.exchange.clone(), routing_key: target.routing_key.clone() };
        let queues = self.route(&to);
        if queues.is_empty() {
            self.homeless.push((target, stored));
            return;
        }
        for name in queues {
            if let Some(queue) = self.queues.get_mut(&name) {
                let message = stored.message.clone();
                queue.ready.push_back(Stored { message, to: to.clone(), redelivered: false, returns: 0 });
                self.dispatch(&name);
            }
        }
    }
}
