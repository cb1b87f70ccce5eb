//! The confirming publisher: a handle, and a task that owns the channel and all that is in flight on it.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation as Answer};
use metrics::{Counter, Gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::confirms::{Attempt, InFlight, Return, Verdict};
use super::link::{Link, Session};
use super::message_codec::{number, properties, short};
use crate::{Address, Confirmation, Error, Message, PublishOutcome, Publisher, limits, metric_definitions as names};

/// How long after the loss of its connection a message may stay without an answer from lapin, which answers all of
/// them at once. Only a safeguard.
const LOSS_GRACE: Duration = Duration::from_secs(2);

/// The most messages taken up between two looks at the answers.
const BATCH: usize = 256;

/// One message on its way.
struct Outgoing {
    to: Address,
    message: Message,
    answer: oneshot::Sender<PublishOutcome>,
    _place: Place,
}

/// A place in the window, from the caller until the answer.
struct Place {
    _permit: OwnedSemaphorePermit,
    in_flight: Gauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.in_flight.decrement(1.0);
    }
}

#[derive(Clone)]
struct Meters {
    published: Counter,
    confirmed: Counter,
    returned: Counter,
    nacked: Counter,
    unknown: Counter,
    in_flight: Gauge,
}

impl Meters {
    fn new() -> Self {
        Self {
            published: metrics::counter!(names::PUBLISHED),
            confirmed: metrics::counter!(names::CONFIRMED),
            returned: metrics::counter!(names::RETURNED),
            nacked: metrics::counter!(names::NACKED),
            unknown: metrics::counter!(names::UNKNOWN),
            in_flight: metrics::gauge!(names::IN_FLIGHT),
        }
    }
}

/// The handle. `G` is what must live as long as it does.
pub(crate) struct ConfirmingPublisher<G> {
    inbox: mpsc::UnboundedSender<Outgoing>,
    window: Arc<Semaphore>,
    link: Link,
    max_body: u64,
    meters: Meters,
    _guard: G,
}

#[async_trait]
impl<G: Send + Sync> Publisher for ConfirmingPublisher<G> {
    async fn publish(&self, to: Address, message: Message) -> Result<Confirmation, Error> {
        limits::check(&to, &message, self.max_body)?;
        self.link.ready().await?;
        let permit = Arc::clone(&self.window).acquire_owned().await.map_err(|_| Error::Closed)?;
        self.meters.in_flight.increment(1.0);
        let place = Place { _permit: permit, in_flight: self.meters.in_flight.clone() };
        let (answer, outcome) = oneshot::channel();
        self.inbox.send(Outgoing { to, message, answer, _place: place }).map_err(|_| Error::Closed)?;
        self.meters.published.increment(1);
        Ok(Confirmation(outcome))
    }
}

/// A publisher with a window, and the task to spawn for it.
pub(crate) fn start<G: Send + Sync>(
    link: Link,
    window: usize,
    max_body: u64,
    longest_backoff: Duration,
    closing: CancellationToken,
    guard: G,
) -> (ConfirmingPublisher<G>, impl Future<Output = ()> + Send + 'static) {
    // Unbounded, since whatever is in it holds a place in the window.
    let (inbox, received) = mpsc::unbounded_channel();
    let window = Arc::new(Semaphore::new(window.clamp(1, Semaphore::MAX_PERMITS)));
    let meters = Meters::new();
    let task = Sender {
        received,
        window: Arc::clone(&window),
        link: link.clone(),
        closing,
        meters: meters.clone(),
        unsent: BTreeMap::new(),
        next_number: 1,
        longest_backoff,
    };
    (ConfirmingPublisher { inbox, window, link, max_body, meters, _guard: guard }, task.run())
}

/// Why work on a channel ended.
enum Ended {
    /// The publisher is closed or gone, and everything has its answer.
    Finished,
    /// The channel is of no use any more.
    Broken,
}

/// The one owner of a publisher's channel. That it sends and collects answers in one task is what makes the reasoning
/// in [`super::confirms`] hold.
struct Sender {
    received: mpsc::UnboundedReceiver<Outgoing>,
    window: Arc<Semaphore>,
    link: Link,
    closing: CancellationToken,
    meters: Meters,
    /// What a lost channel did not write, by number: to be sent first on the next.
    unsent: BTreeMap<u64, Outgoing>,
    next_number: u64,
    longest_backoff: Duration,
}

impl Sender {
    async fn run(mut self) {
        let mut backoff = Backoff::new(self.longest_backoff);
        loop {
            let session = tokio::select! {
                biased;
                session = self.link.session() => session,
                () = self.closing.cancelled() => Err(Error::Closed),
            };
            // What is left unsent is dropped, and its confirmations say that the publisher was closed.
            let Ok(session) = session else { break };
            let next_before = self.next_number;
            match open(&session).await {
                Ok(channel) => {
                    if matches!(self.work(channel, session.epoch).await, Ended::Finished) {
                        break;
                    }
                    if self.next_number > next_before && self.unsent.is_empty() {
                        backoff.reset();
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot open a channel to publish on"),
            }
            // A channel can be lost again and again on a connection that lasts, by publishing to no exchange.
            tokio::time::sleep(backoff.delay()).await;
        }
        self.window.close();
    }

    async fn work(&mut self, channel: Channel, epoch: u64) -> Ended {
        let channel = Arc::new(channel);
        let mut in_flight = InFlight::default();
        for outgoing in std::mem::take(&mut self.unsent).into_values() {
            self.send(&channel, &mut in_flight, outgoing);
        }
        let link = self.link.clone();
        let lost = link.lost(epoch);
        tokio::pin!(lost);
        let closing = self.closing.clone();
        let (mut broken, mut finished, mut give_up_at) = (false, false, None);
        let mut batch = Vec::new();
        loop {
            if in_flight.is_empty() {
                if broken {
                    return Ended::Broken;
                }
                if finished {
                    return Ended::Finished;
                }
            }
            tokio::select! {
                biased;
                () = &mut lost, if give_up_at.is_none() => {
                    broken = true;
                    give_up_at = Some(Instant::now() + LOSS_GRACE);
                }
                verdicts = poll_fn(|context| in_flight.poll_verdicts(context)), if !in_flight.is_empty() => {
                    for (number, outgoing, verdict) in verdicts {
                        match verdict {
                            Verdict::NotWritten(reason) => {
                                tracing::debug!(number, reason, "a message was not written; it is sent again");
                                self.unsent.insert(number, outgoing);
                                broken = true;
                            }
                            Verdict::Outcome(outcome) => {
                                broken |= matches!(outcome, PublishOutcome::Unknown { .. });
                                self.answer(outgoing, outcome);
                            }
                        }
                    }
                }
                () = closing.cancelled(), if !finished && !self.window.is_closed() => {
                    // Nothing more comes in; what is in already goes out.
                    self.window.close();
                    self.received.close();
                }
                _ = self.received.recv_many(&mut batch, BATCH), if !broken && !finished => {
                    finished = batch.is_empty();
                    for outgoing in batch.drain(..) {
                        self.send(&channel, &mut in_flight, outgoing);
                    }
                }
                () = sleep_until(give_up_at.unwrap_or_else(Instant::now)), if give_up_at.is_some() => {
                    for outgoing in in_flight.abandon() {
                        let reason = "the connection went, and nothing was heard of this message".to_owned();
                        self.answer(outgoing, PublishOutcome::Unknown { reason });
                    }
                }
            }
        }
    }

    fn send(&mut self, channel: &Arc<Channel>, in_flight: &mut InFlight<Outgoing>, outgoing: Outgoing) {
        let number = self.next_number;
        self.next_number += 1;
        let encoded = short(&outgoing.to.exchange).and_then(|exchange| {
            Ok((exchange, short(&outgoing.to.routing_key)?, properties(&outgoing.message, number)?))
        });
        match encoded {
            Ok((exchange, key, properties)) => {
                let body = outgoing.message.body.clone();
                let attempt = attempt(Arc::clone(channel), exchange, key, body, properties).boxed();
                in_flight.push(number, outgoing, attempt);
            }
            // Cannot be: `limits` refused whatever does not fit.
            Err(error) => self.answer(outgoing, PublishOutcome::Unknown { reason: error.to_string() }),
        }
    }

    fn answer(&self, outgoing: Outgoing, outcome: PublishOutcome) {
        let counter = match outcome {
            PublishOutcome::Confirmed => &self.meters.confirmed,
            PublishOutcome::Returned { .. } => &self.meters.returned,
            PublishOutcome::Nacked => &self.meters.nacked,
            PublishOutcome::Unknown { .. } => &self.meters.unknown,
        };
        counter.increment(1);
        // The caller may have dropped the confirmation.
        let _ = outgoing.answer.send(outcome);
    }
}

async fn open(session: &Session) -> Result<Channel, lapin::Error> {
    let channel = session.channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Sends one message. The first poll puts it in line behind those before it; lapin reports it as written only when its
/// last byte is with the operating system, and as failed only if it is not.
async fn attempt(
    channel: Arc<Channel>,
    exchange: ShortString,
    key: ShortString,
    body: Bytes,
    properties: BasicProperties,
) -> Attempt {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirm = match channel.basic_publish(exchange, key, options, &body, properties).await {
        Ok(confirm) => confirm,
        Err(error) => return Attempt::NotWritten(error.to_string()),
    };
    let (positive, returned) = match confirm.await {
        Ok(Answer::Ack(returned)) => (true, returned),
        Ok(Answer::Nack(returned)) => (false, returned),
        Ok(Answer::NotRequested) => return Attempt::Lost("confirms are off on this channel".to_owned()),
        Err(error) => return Attempt::Lost(error.to_string()),
    };
    let returned = returned.and_then(|returned| {
        let reason = returned.reply_text.to_string();
        let number = number(&returned.delivery.properties);
        if number.is_none() {
            tracing::error!(reason, "the broker returned a message that this publisher did not send");
        }
        number.map(|number| Return { number, reason })
    });
    Attempt::Answered { positive, returned }
}
