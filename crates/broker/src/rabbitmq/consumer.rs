//! A consumer that comes back: a handle, and a task that opens the channel, feeds the handle, and opens the next when
//! the channel is lost or the broker cancels the consumer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::{FieldTable, ShortString};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backoff::Backoff;
use super::declaration::{Declarations, declare_each};
use super::failure::{Failure, NOT_FOUND};
use super::link::{Link, Session};
use super::message_codec::{message, short};
use crate::event_queue::EventQueue;
use crate::port::Settler;
use crate::{ConsumeOptions, Consumer, ConsumerEvent, Delivery, Error, Settlement, metric_definitions};

/// How long closing waits for the broker to stop delivering.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// The handle. `G` is what must live as long as it does.
pub(crate) struct ReturningConsumer<G> {
    events: Arc<EventQueue>,
    closing: CancellationToken,
    task: Option<JoinHandle<()>>,
    _guard: G,
}

#[async_trait]
impl<G: Send> Consumer for ReturningConsumer<G>
where
    G: Sync,
{
    async fn next(&mut self) -> Option<ConsumerEvent> {
        self.events.next().await
    }

    async fn close(mut self: Box<Self>) {
        self.closing.cancel();
        if let Some(task) = self.task.take() {
            // It ends by itself; a panic in it has been reported by its runtime.
            let _ = task.await;
        }
    }
}

impl<G> Drop for ReturningConsumer<G> {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// What a consumer needs of its broker handle.
pub(crate) struct Surroundings {
    pub(crate) link: Link,
    pub(crate) declarations: Arc<Declarations>,
    pub(crate) longest_backoff: Duration,
    pub(crate) closing: CancellationToken,
    pub(crate) workers: TaskTracker,
}

/// Consumes for the first time, so that a queue that is missing or taken is an error of the call, and starts the task.
pub(crate) async fn start<G: Send + Sync>(
    surroundings: Surroundings,
    queue: &str,
    options: ConsumeOptions,
    guard: G,
) -> Result<ReturningConsumer<G>, Error> {
    let Surroundings { link, declarations, longest_backoff, closing, workers } = surroundings;
    let events = Arc::new(EventQueue::default());
    let mut feeder = Feeder {
        link,
        declarations,
        backoff: Backoff::new(longest_backoff),
        queue: short(queue)?,
        tag: short(&options.tag)?,
        window: options.window.max(1),
        exclusive: options.exclusive,
        events: Arc::clone(&events),
        closing: closing.clone(),
        channels: 0,
    };
    let first = feeder.first_channel().await?;
    let task = Some(workers.spawn(feeder.run(first)));
    Ok(ReturningConsumer { events, closing, task, _guard: guard })
}

/// A channel with a consumer on it.
struct Subscription {
    session: Session,
    channel: Channel,
    stream: lapin::Consumer,
    settler: Arc<ChannelSettler>,
}

/// Why a subscription ended.
enum Ended {
    Closing,
    Lost(String),
}

struct Feeder {
    link: Link,
    declarations: Arc<Declarations>,
    backoff: Backoff,
    queue: ShortString,
    tag: ShortString,
    window: u16,
    exclusive: bool,
    events: Arc<EventQueue>,
    closing: CancellationToken,
    /// Channels so far; the number of the present one is the epoch of its deliveries.
    channels: u64,
}

impl Feeder {
    async fn first_channel(&mut self) -> Result<Subscription, Error> {
        let mut declared = false;
        loop {
            let session = self.link.session().await?;
            match self.subscribe(&session).await {
                Ok(subscription) => return Ok(subscription),
                // The queue can have gone since it was declared: an exclusive one goes with its last consumer.
                Err(Failure::Refused { code: NOT_FOUND, .. }) if !declared => {
                    declared = true;
                    self.declare(&session).await;
                }
                Err(Failure::Refused { reason, .. }) => {
                    return Err(Error::Refused { object: self.queue.to_string(), reason });
                }
                Err(Failure::Lost(reason)) => {
                    tracing::debug!(queue = %self.queue, reason, "lost the channel while starting to consume");
                    tokio::time::sleep(self.backoff.delay()).await;
                }
            }
        }
    }

    async fn run(mut self, first: Subscription) {
        let mut subscription = first;
        let closing = self.closing.clone();
        loop {
            match self.feed(&mut subscription).await {
                Ended::Closing => {
                    self.hand_back(subscription).await;
                    return;
                }
                Ended::Lost(reason) => {
                    tracing::warn!(queue = %self.queue, reason, "a consumer lost its channel");
                }
            }
            metrics::counter!(metric_definitions::INTERRUPTIONS).increment(1);
            let lost = subscription.session.epoch;
            drop(subscription);
            self.events.interrupt();
            match closing.run_until_cancelled(self.next_channel(lost)).await {
                Some(Some(next)) => subscription = next,
                // Closing, or the whole connection is closed.
                _ => break,
            }
        }
        self.events.end();
    }

    /// Passes deliveries on until the subscription ends.
    async fn feed(&mut self, subscription: &mut Subscription) -> Ended {
        let mut delivered = false;
        let mut failure = None;
        let link = self.link.clone();
        let lost = link.lost(subscription.session.epoch);
        tokio::pin!(lost);
        loop {
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return Ended::Closing,
                next = subscription.stream.next() => match next {
                    Some(Ok(delivery)) => {
                        if !delivered {
                            delivered = true;
                            self.backoff.reset();
                        }
                        self.events.push(subscription.settler.delivery(delivery));
                    }
                    Some(Err(error)) => failure = Some(error.to_string()),
                    None => {
                        let cancelled = || "the broker cancelled the consumer".to_owned();
                        return Ended::Lost(failure.unwrap_or_else(cancelled));
                    }
                },
                // lapin ends the stream with the connection; this only guards against one that it does not end.
                () = &mut lost => {
                    return Ended::Lost(failure.unwrap_or_else(|| "the connection was lost".to_owned()));
                }
            }
        }
    }

    /// The next subscription; `None` when the connection is closed for good.
    async fn next_channel(&mut self, mut last_epoch: u64) -> Option<Subscription> {
        loop {
            tokio::time::sleep(self.backoff.delay()).await;
            let session = self.link.session().await.ok()?;
            // A new connection has just declared everything; on the same one the queue may be what was lost.
            if session.epoch == last_epoch {
                self.declare(&session).await;
            }
            last_epoch = session.epoch;
            match self.subscribe(&session).await {
                Ok(subscription) => {
                    tracing::info!(queue = %self.queue, epoch = self.channels, "a consumer is back");
                    return Some(subscription);
                }
                Err(failure) => tracing::warn!(queue = %self.queue, %failure, "cannot consume yet"),
            }
        }
    }

    async fn declare(&self, session: &Session) {
        // What cannot be declared has been logged, and consuming fails then.
        declare_each(&session.connection, &self.declarations.of_queue(self.queue.as_str())).await;
    }

    async fn subscribe(&mut self, session: &Session) -> Result<Subscription, Failure> {
        let channel = session.channel().await?;
        channel.basic_qos(self.window, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions { exclusive: self.exclusive, ..BasicConsumeOptions::default() };
        let stream =
            channel.basic_consume(self.queue.clone(), self.tag.clone(), options, FieldTable::default()).await?;
        self.channels += 1;
        let settler = Arc::new(ChannelSettler { epoch: self.channels, channel: channel.clone() });
        Ok(Subscription { session: session.clone(), channel, stream, settler })
    }

    /// Stops the deliveries and gives back what nobody has read, oldest first. The channel stays open as long as
    /// somebody holds a delivery of it, since each holds the settler.
    async fn hand_back(self, mut subscription: Subscription) {
        let tag = subscription.stream.tag();
        let cancel = subscription.channel.basic_cancel(tag, BasicCancelOptions::default());
        let cancelled = matches!(timeout(CANCEL_TIMEOUT, cancel).await, Ok(Ok(())));
        for delivery in self.events.end() {
            delivery.requeue().await;
        }
        if !cancelled {
            // The channel is gone, or about to go with its connection: the broker takes everything back.
            return;
        }
        // After the broker's answer the stream ends behind the last delivery.
        while let Ok(Some(Ok(delivery))) = timeout(CANCEL_TIMEOUT, subscription.stream.next()).await {
            subscription.settler.delivery(delivery).requeue().await;
        }
    }
}

/// Settles the deliveries of one channel, and keeps it open.
#[derive(Debug)]
struct ChannelSettler {
    epoch: u64,
    channel: Channel,
}

impl ChannelSettler {
    fn delivery(self: &Arc<Self>, mut delivered: lapin::message::Delivery) -> Box<Delivery> {
        Box::new(Delivery {
            message: message(&mut delivered),
            redelivered: delivered.redelivered,
            exchange: delivered.exchange.to_string(),
            routing_key: delivered.routing_key.to_string(),
            tag: delivered.delivery_tag,
            epoch: self.epoch,
            settler: Arc::clone(self) as Arc<dyn Settler>,
        })
    }
}

#[async_trait]
impl Settler for ChannelSettler {
    async fn settle(&self, epoch: u64, tag: u64, settlement: Settlement) -> bool {
        if epoch != self.epoch {
            return false;
        }
        // The first poll puts the frame in line; waiting until it is written would serve nobody, since the broker does
        // not answer it. If the channel is gone, the first poll says so.
        let sent = match settlement {
            Settlement::Ack => self.channel.basic_ack(tag, BasicAckOptions::default()).now_or_never(),
            Settlement::AckThrough => self.channel.basic_ack(tag, BasicAckOptions { multiple: true }).now_or_never(),
            Settlement::Requeue => self.channel.basic_nack(tag, requeue()).now_or_never(),
            Settlement::Reject => self.channel.basic_reject(tag, BasicRejectOptions { requeue: false }).now_or_never(),
        };
        !matches!(sent, Some(Err(_)))
    }
}

fn requeue() -> BasicNackOptions {
    BasicNackOptions { requeue: true, multiple: false }
}
