//! A connection to the broker in memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use forecastle_protos::headers::HeaderValue;
use tokio::sync::{oneshot, watch};

use super::delivery::{ChannelSettler, Server, consume, stop_consuming};
use super::routing::ConnectionId;
use crate::event_queue::EventQueue;
use crate::{
    Address, Broker, Confirmation, ConsumeOptions, Consumer, ConsumerEvent, Error, Message, PublishOutcome, Publisher,
    QueueDepth, Topology, limits,
};

/// A connection to a broker in memory. Clones are the same connection; [`MemoryBroker::another_connection`] is to the
/// same broker. Faults concern this connection only.
#[derive(Clone)]
pub struct MemoryBroker(Arc<Connection>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Up,
    Down,
    Closed,
}

struct Connection {
    server: Arc<Server>,
    id: ConnectionId,
    status: watch::Sender<Status>,
    /// What was declared, to be declared again when the connection is back.
    remembered: Mutex<Vec<Topology>>,
    confirms_to_lose: AtomicUsize,
    /// The event queues of its consumers, to be ended when it is closed.
    consumers: Mutex<Vec<(std::sync::Weak<ChannelSettler>, Arc<EventQueue>)>>,
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBroker {
    /// A connection to a new, empty broker.
    pub fn new() -> Self {
        Self::connected_to(Arc::default())
    }

    /// Another connection to the same broker.
    #[must_use]
    pub fn another_connection(&self) -> Self {
        Self::connected_to(Arc::clone(&self.0.server))
    }

    fn connected_to(server: Arc<Server>) -> Self {
        let id = {
            let mut state = server.lock();
            state.last_id += 1;
            state.last_id
        };
        Self(Arc::new(Connection {
            server,
            id,
            status: watch::Sender::new(Status::Up),
            remembered: Mutex::default(),
            confirms_to_lose: AtomicUsize::new(0),
            consumers: Mutex::default(),
        }))
    }

    /// A fault: every consumer loses its channel and comes back at once. What they hold is delivered again.
    pub fn interrupt_consumers(&self) {
        let void = self.0.server.lock().interrupt(|channel| channel.connection == self.0.id, false);
        drop(void);
    }

    /// A fault: the connection is lost, and with it channels and exclusive queues, until [`Self::reconnect`].
    pub fn disconnect(&self) {
        if self.0.status.send_if_modified(|status| std::mem::replace(status, Status::Down) == Status::Up) {
            self.0.lose_channels_and_queues();
        }
    }

    /// Ends the fault of [`Self::disconnect`].
    pub fn reconnect(&self) {
        if *self.0.status.borrow() != Status::Down {
            return;
        }
        let mut state = self.0.server.lock();
        for topology in self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Err(error) = state.declare(self.0.id, topology) {
                tracing::warn!(%error, "cannot declare again");
            }
        }
        state.resume(self.0.id);
        drop(state);
        self.0.status.send_replace(Status::Up);
    }

    /// A fault: the broker takes the next `count` messages, but its answers are lost, so that their outcome is
    /// [`PublishOutcome::Unknown`].
    pub fn lose_confirms(&self, count: usize) {
        self.0.confirms_to_lose.store(count, Ordering::SeqCst);
    }
}

impl Connection {
    /// Waits until it is up.
    async fn up(&self) -> Result<(), Error> {
        let mut status = self.status.subscribe();
        let reached = status.wait_for(|status| *status != Status::Down).await.map(|status| *status);
        match reached {
            Ok(Status::Up) => Ok(()),
            _ => Err(Error::Closed),
        }
    }

    /// An exclusive queue that went with its last consumer is there again for the next.
    fn declare_again(&self, queue: &str) {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.server.lock();
        for known in remembered.iter().flat_map(|topology| &topology.queues).filter(|known| known.name == queue) {
            if state.queues.contains_key(queue) {
                return;
            }
            let alone = Topology { exchanges: Vec::new(), queues: vec![known.clone()] };
            if let Err(error) = state.declare(self.id, &alone) {
                tracing::warn!(%error, "cannot declare again");
            }
        }
    }

    fn lose_channels_and_queues(&self) {
        let mut state = self.server.lock();
        let void = state.interrupt(|channel| channel.connection == self.id, true);
        for queue in state.owned(self.id) {
            state.delete_queue(&queue);
        }
        drop(state);
        drop(void);
    }

    fn publish(&self, to: &Address, mut message: Message) -> PublishOutcome {
        // As with RabbitMQ: what the codec cannot write is left out.
        message.headers.retain(|_, value| !matches!(value, HeaderValue::Other(_)));
        let outcome = self.server.lock().publish(to, &message);
        let less_one = |left: usize| left.checked_sub(1);
        if self.confirms_to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less_one).is_ok() {
            return PublishOutcome::Unknown { reason: "the confirm was lost on command".to_owned() };
        }
        outcome
    }
}

struct MemoryPublisher(Arc<Connection>);

#[async_trait]
impl Publisher for MemoryPublisher {
    async fn publish(&self, to: Address, message: Message) -> Result<Confirmation, Error> {
        limits::check(&to, &message, limits::BODY_BYTES)?;
        self.0.up().await?;
        let (answer, outcome) = oneshot::channel();
        // The other end is in our hands.
        let _ = answer.send(self.0.publish(&to, message));
        Ok(Confirmation(outcome))
    }
}

struct MemoryConsumer {
    settler: Arc<ChannelSettler>,
    events: Arc<EventQueue>,
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn next(&mut self) -> Option<ConsumerEvent> {
        self.events.next().await
    }

    async fn close(self: Box<Self>) {
        // Dropping it does everything.
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        stop_consuming(&self.settler, &self.events);
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn declare(&self, topology: &Topology) -> Result<(), Error> {
        self.0.up().await?;
        self.0.server.lock().declare(self.0.id, topology)?;
        self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner).push(topology.clone());
        Ok(())
    }

    async fn publisher(&self, _window: usize) -> Result<Arc<dyn Publisher>, Error> {
        if *self.0.status.borrow() == Status::Closed {
            return Err(Error::Closed);
        }
        Ok(Arc::new(MemoryPublisher(Arc::clone(&self.0))))
    }

    async fn consumer(&self, queue: &str, options: ConsumeOptions) -> Result<Box<dyn Consumer>, Error> {
        self.0.up().await?;
        self.0.declare_again(queue);
        let (settler, events) = consume(&self.0.server, self.0.id, queue, &options)?;
        let mut consumers = self.0.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        consumers.retain(|(settler, _)| settler.strong_count() > 0);
        consumers.push((Arc::downgrade(&settler), Arc::clone(&events)));
        Ok(Box::new(MemoryConsumer { settler, events }))
    }

    async fn depth(&self, queue: &str) -> Result<Option<QueueDepth>, Error> {
        self.0.up().await?;
        self.0.server.lock().depth(self.0.id, queue)
    }

    async fn delete_queue(&self, queue: &str) -> Result<(), Error> {
        self.0.up().await?;
        {
            let mut remembered = self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.iter_mut().for_each(|topology| topology.queues.retain(|known| known.name != queue));
        }
        let mut state = self.0.server.lock();
        if !state.queues.contains_key(queue) {
            return Ok(());
        }
        state.usable(self.0.id, queue)?;
        state.delete_queue(queue);
        let void = state.interrupt(|channel| channel.consumes(queue), false);
        drop(state);
        drop(void);
        Ok(())
    }

    fn is_connected(&self) -> bool {
        *self.0.status.borrow() == Status::Up
    }

    async fn close(&self) {
        if self.0.status.send_replace(Status::Closed) == Status::Closed {
            return;
        }
        let consumers = std::mem::take(&mut *self.0.consumers.lock().unwrap_or_else(PoisonError::into_inner));
        for (settler, events) in consumers {
            if let Some(settler) = settler.upgrade() {
                stop_consuming(&settler, &events);
            }
        }
        self.0.lose_channels_and_queues();
    }
}
