//! A role's link to the broker: slow, paused, cut or dead; messages on it are lost, doubled or late.

use std::sync::Arc;

use async_trait::async_trait;
use forecastle_broker::{
    Address, Broker, Confirmation, ConsumeOptions, Consumer, ConsumerEvent, Error, MemoryBroker, Message,
    PublishOutcome, Publisher, QueueDepth, Topology,
};
use tokio::sync::watch;

use crate::fuse::Fuse;
use crate::weather::{Fate, Weather};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Paused,
    Dead,
}

/// A role's connection. Clones are the same.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    connection: MemoryBroker,
    /// What stays when the role goes: late and doubled messages come from here.
    elsewhere: MemoryBroker,
    state: watch::Sender<State>,
    fuse: Arc<Fuse>,
    weather: Arc<Weather>,
}

impl Link {
    /// A link to the broker that `to` is connected to.
    pub fn new(to: &MemoryBroker, fuse: Arc<Fuse>, weather: Arc<Weather>) -> Self {
        let state = watch::Sender::new(State::Open);
        Self(Arc::new(Inner { connection: to.another_connection(), elsewhere: to.clone(), state, fuse, weather }))
    }

    /// Loses the connection, and does not find it again by itself.
    pub fn cut(&self) {
        self.0.connection.disconnect();
    }

    /// Finds the broker again.
    pub fn mend(&self) {
        if *self.0.state.borrow() != State::Dead {
            self.0.connection.reconnect();
        }
    }

    /// Nothing goes in or out. The broker takes no notice.
    pub fn pause(&self) {
        self.0.become_(State::Paused);
    }

    /// Goes on.
    pub fn resume(&self) {
        self.0.become_(State::Open);
    }

    /// The role is gone: the broker takes back what it had, and nothing that is left of it is ever answered.
    pub fn kill(&self) {
        self.0.become_(State::Dead);
        self.0.connection.disconnect();
    }

    /// Waits while paused, and for ever once dead.
    pub async fn pass(&self) {
        self.0.pass().await;
    }
}

impl Inner {
    fn become_(&self, wanted: State) {
        self.state.send_if_modified(|state| *state != State::Dead && std::mem::replace(state, wanted) != wanted);
    }

    async fn pass(&self) {
        let open = self.state.subscribe().wait_for(|state| *state == State::Open).await.is_ok();
        if !open {
            std::future::pending::<()>().await;
        }
    }

    async fn step(&self) {
        self.pass().await;
        tokio::time::sleep(self.weather.latency()).await;
        self.fuse.step().await;
        self.pass().await;
    }
}

struct LinkPublisher {
    link: Arc<Inner>,
    publisher: Arc<dyn Publisher>,
}

#[async_trait]
impl Publisher for LinkPublisher {
    async fn publish(&self, to: Address, message: Message) -> Result<Confirmation, Error> {
        let link = &self.link;
        link.step().await;
        link.weather.no_alarm().await;
        let fate = link.weather.fate(&to);
        let confirmation = match fate {
            Fate::Lost | Fate::Delayed(_) => {
                let (answer, confirmation) = Confirmation::to_come();
                // The other end is in our hands.
                let _ = answer.send(PublishOutcome::Confirmed);
                confirmation
            }
            Fate::Arrives | Fate::Duplicated | Fate::ConfirmLost => {
                self.publisher.publish(to.clone(), message.clone()).await?
            }
        };
        if let Fate::Duplicated | Fate::Delayed(_) = fate {
            let (elsewhere, weather) = (link.elsewhere.clone(), Arc::clone(&link.weather));
            tokio::spawn(async move {
                let late = if let Fate::Delayed(late) = fate { late } else { weather.latency() };
                tokio::time::sleep(late).await;
                let Ok(publisher) = elsewhere.publisher(1).await else { return };
                // Its queue may have gone meanwhile, and then so has the message.
                drop(publisher.publish(to, message).await);
            });
        }
        link.fuse.step().await;
        let (answer, to_come) = Confirmation::to_come();
        let link = Arc::clone(link);
        tokio::spawn(async move {
            let mut outcome = confirmation.outcome().await;
            tokio::time::sleep(link.weather.latency()).await;
            link.pass().await;
            if fate == Fate::ConfirmLost {
                outcome = PublishOutcome::Unknown { reason: "the confirm was lost".to_owned() };
            }
            // Whoever sent it may not care.
            let _ = answer.send(outcome);
        });
        Ok(to_come)
    }
}

struct LinkConsumer {
    link: Arc<Inner>,
    consumer: Box<dyn Consumer>,
    /// Arrived while paused.
    held: Option<ConsumerEvent>,
}

#[async_trait]
impl Consumer for LinkConsumer {
    async fn next(&mut self) -> Option<ConsumerEvent> {
        if self.held.is_none() {
            self.held = Some(self.consumer.next().await?);
        }
        self.link.pass().await;
        self.held.take()
    }

    async fn close(mut self: Box<Self>) {
        self.held = None;
        self.consumer.close().await;
    }
}

#[async_trait]
impl Broker for Link {
    async fn declare(&self, topology: &Topology) -> Result<(), Error> {
        self.0.step().await;
        self.0.connection.declare(topology).await
    }

    async fn publisher(&self, window: usize) -> Result<Arc<dyn Publisher>, Error> {
        self.pass().await;
        let publisher = self.0.connection.publisher(window).await?;
        Ok(Arc::new(LinkPublisher { link: Arc::clone(&self.0), publisher }))
    }

    async fn consumer(&self, queue: &str, options: ConsumeOptions) -> Result<Box<dyn Consumer>, Error> {
        self.0.step().await;
        let consumer = self.0.connection.consumer(queue, options).await?;
        Ok(Box::new(LinkConsumer { link: Arc::clone(&self.0), consumer, held: None }))
    }

    async fn depth(&self, queue: &str) -> Result<Option<QueueDepth>, Error> {
        self.0.step().await;
        self.0.connection.depth(queue).await
    }

    async fn delete_queue(&self, queue: &str) -> Result<(), Error> {
        self.0.step().await;
        self.0.connection.delete_queue(queue).await
    }

    fn is_connected(&self) -> bool {
        self.0.connection.is_connected()
    }

    async fn close(&self) {
        self.0.connection.close().await;
    }
}
