//! Who gets which message in memory, and what becomes of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;

use super::routing::{ConnectionId, State, Stored};
use crate::event_queue::EventQueue;
use crate::port::Settler;
use crate::{ConsumeOptions, Delivery, Error, QueueDepth, QueueKind, Settlement};

/// The broker in memory.
#[derive(Debug, Default)]
pub(super) struct Server(Mutex<State>);

impl Server {
    /// No delivery may be dropped under this lock: see [`State`].
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One consumer's channel. It outlives its consumer as long as somebody holds a delivery of it.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) connection: ConnectionId,
    queue: String,
    window: usize,
    exclusive: bool,
    /// Rises with every interruption.
    epoch: u64,
    last_tag: u64,
    /// By tag, which is the order of delivery.
    unsettled: BTreeMap<u64, Stored>,
    /// False once the consumer is closed.
    consuming: bool,
    /// True while its connection is down.
    paused: bool,
    events: Arc<EventQueue>,
    settler: Weak<ChannelSettler>,
    /// When it last got a message; the longest ago is next.
    turn: u64,
}

/// Keeps a channel, and settles on it. When the last one goes, what is unsettled goes back to the queue.
#[derive(Debug)]
pub(super) struct ChannelSettler {
    server: Arc<Server>,
    id: u64,
}

impl Drop for ChannelSettler {
    fn drop(&mut self) {
        self.server.lock().remove_channel(self.id);
    }
}

#[async_trait]
impl Settler for ChannelSettler {
    async fn settle(&self, epoch: u64, tag: u64, settlement: Settlement) -> bool {
        self.server.lock().settle(self.id, epoch, tag, settlement)
    }
}

/// Starts to consume.
pub(super) fn consume(
    server: &Arc<Server>,
    connection: ConnectionId,
    queue: &str,
    options: &ConsumeOptions,
) -> Result<(Arc<ChannelSettler>, Arc<EventQueue>), Error> {
    let mut state = server.lock();
    // As with RabbitMQ, quorum queues take no notice of exclusive consumers.
    if matches!(state.usable(connection, queue)?.kind, QueueKind::Exclusive { .. }) {
        let mut others = state.channels.values().filter(|other| other.consuming && other.queue == queue).peekable();
        if (options.exclusive && others.peek().is_some()) || others.any(|other| other.exclusive) {
            let reason = format!("ACCESS_REFUSED - queue '{queue}' in exclusive use");
            return Err(Error::Refused { object: queue.to_owned(), reason });
        }
    }
    state.last_id += 1;
    let id = state.last_id;
    let settler = Arc::new(ChannelSettler { server: Arc::clone(server), id });
    let events = Arc::new(EventQueue::default());
    let channel = Channel {
        connection,
        queue: queue.to_owned(),
        window: usize::from(options.window.max(1)),
        exclusive: options.exclusive,
        epoch: 1,
        last_tag: 0,
        unsettled: BTreeMap::new(),
        consuming: true,
        paused: false,
        events: Arc::clone(&events),
        settler: Arc::downgrade(&settler),
        turn: 0,
    };
    state.channels.insert(id, channel);
    state.dispatch(queue);
    drop(state);
    Ok((settler, events))
}

/// Stops the deliveries of a consumer and hands back those that nobody has read.
pub(super) fn stop_consuming(settler: &ChannelSettler, events: &EventQueue) {
    if let Some(channel) = settler.server.lock().channels.get_mut(&settler.id) {
        channel.consuming = false;
    }
    let unread = events.end();
    let mut state = settler.server.lock();
    state.take_back(settler.id, unread.iter().map(|delivery| delivery.tag));
    drop(state);
    drop(unread);
}

impl State {
    /// Hands out ready messages, in turn, to consumers with room in their windows.
    pub(super) fn dispatch(&mut self, queue: &str) {
        let Some(ready) = self.queues.get_mut(queue).map(|state| &mut state.ready) else { return };
        while !ready.is_empty() {
            let free = self.channels.values_mut().filter(|channel| {
                channel.queue == queue
                    && channel.consuming
                    && !channel.paused
                    && channel.unsettled.len() < channel.window
                    && channel.settler.strong_count() > 0
            });
            let Some(channel) = free.min_by_key(|channel| channel.turn) else { return };
            // It can have gone since it was counted, with its last holder; then the channel is gone in a moment.
            let Some(settler) = channel.settler.upgrade() else { return };
            let Some(stored) = ready.pop_front() else { return };
            self.last_id += 1;
            channel.turn = self.last_id;
            channel.last_tag += 1;
            let delivery = Delivery {
                message: stored.message.clone(),
                redelivered: stored.redelivered,
                exchange: stored.to.exchange.clone(),
                routing_key: stored.to.routing_key.clone(),
                tag: channel.last_tag,
                epoch: channel.epoch,
                settler,
            };
            channel.unsettled.insert(channel.last_tag, stored);
            // The queue has not ended: that comes after `consuming` is false, which is set under this lock.
            channel.events.push(Box::new(delivery));
        }
    }

    fn settle(&mut self, id: u64, epoch: u64, tag: u64, settlement: Settlement) -> bool {
        let Some(channel) = self.channels.get_mut(&id).filter(|channel| channel.epoch == epoch) else { return false };
        let Some(stored) = channel.unsettled.remove(&tag) else { return false };
        let queue = channel.queue.clone();
        match settlement {
            Settlement::Ack => {}
            Settlement::AckThrough => channel.unsettled = channel.unsettled.split_off(&tag),
            Settlement::Requeue => self.put_back(&queue, [stored]),
            Settlement::Reject => self.dead_letter(&queue, stored),
        }
        self.dispatch(&queue);
        true
    }

    /// Requeues what the consumer of a channel has not read, as it stops; tags in order of delivery.
    fn take_back(&mut self, id: u64, tags: impl Iterator<Item = u64>) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let stored: Vec<Stored> = tags.filter_map(|tag| channel.unsettled.remove(&tag)).collect();
        let queue = channel.queue.clone();
        self.put_back(&queue, stored);
        self.dispatch(&queue);
        self.delete_if_unused(&queue);
    }

    /// Back to the front of the queue in their order, except for those that have come back too often.
    fn put_back(&mut self, queue: &str, stored: impl IntoIterator<Item = Stored, IntoIter: DoubleEndedIterator>) {
        for mut stored in stored.into_iter().rev() {
            let Some(state) = self.queues.get_mut(queue) else { return };
            stored.redelivered = true;
            stored.returns = stored.returns.saturating_add(1);
            match state.kind {
                QueueKind::Quorum { delivery_limit, .. } if stored.returns > delivery_limit => {
                    self.dead_letter(queue, stored);
                }
                _ => state.ready.push_front(stored),
            }
        }
    }

    fn remove_channel(&mut self, id: u64) {
        if let Some(channel) = self.channels.remove(&id) {
            self.put_back(&channel.queue, channel.unsettled.into_values().collect::<Vec<_>>());
            self.dispatch(&channel.queue);
        }
    }

    /// Exclusive queues go with their last consumer.
    fn delete_if_unused(&mut self, queue: &str) {
        let exclusive = self.queues.get(queue).is_some_and(|state| matches!(state.kind, QueueKind::Exclusive { .. }));
        if exclusive && self.consumers(queue) == 0 {
            self.delete_queue(queue);
        }
    }

    /// What happens to consumers when their channel is lost: all that they hold goes back. The deliveries that are
    /// void now are for the caller to drop, without the lock.
    #[must_use = "drop them without the lock"]
    pub(super) fn interrupt(&mut self, which: impl Fn(&Channel) -> bool, pause: bool) -> Vec<Delivery> {
        let mut void = Vec::new();
        let ids: Vec<u64> = self.channels.iter().filter(|(_, channel)| which(channel)).map(|(id, _)| *id).collect();
        let mut queues = Vec::new();
        for id in ids {
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            channel.epoch += 1;
            channel.paused |= pause;
            let unsettled = std::mem::take(&mut channel.unsettled);
            if channel.consuming {
                void.extend(channel.events.interrupt());
            }
            let queue = channel.queue.clone();
            self.put_back(&queue, unsettled.into_values().collect::<Vec<_>>());
            queues.push(queue);
        }
        for queue in &queues {
            self.dispatch(queue);
        }
        void
    }

    /// Lets the consumers of a connection go on.
    pub(super) fn resume(&mut self, connection: ConnectionId) {
        let mut queues = Vec::new();
        for channel in self.channels.values_mut().filter(|channel| channel.connection == connection) {
            channel.paused = false;
            queues.push(channel.queue.clone());
        }
        for queue in &queues {
            self.dispatch(queue);
        }
    }

    pub(super) fn consumers(&self, queue: &str) -> u32 {
        let count = self.channels.values().filter(|c| c.consuming && !c.paused && c.queue == queue).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    pub(super) fn depth(&self, connection: ConnectionId, queue: &str) -> Result<Option<QueueDepth>, Error> {
        if !self.queues.contains_key(queue) {
            return Ok(None);
        }
        let ready = self.usable(connection, queue)?.ready.len();
        Ok(Some(QueueDepth { ready: u32::try_from(ready).unwrap_or(u32::MAX), consumers: self.consumers(queue) }))
    }
}

impl Channel {
    pub(super) fn consumes(&self, queue: &str) -> bool {
        self.queue == queue
    }
}
