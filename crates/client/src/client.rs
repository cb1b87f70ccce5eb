//! The client.

use std::sync::{Arc, Mutex, PoisonError};

use deadpool::managed::{Pool, PoolError, TimeoutType};
use forecastle_protos::{PROTOBUF, v1};
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Confirmation};
use prost::Message as _;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use crate::channels::{self, ChannelManager};
use crate::correlation::correlation_id;
use crate::options::SHORT_STRING;
use crate::pending::{Link, Pending, Waiter};
use crate::replies::ReplyLink;
use crate::{Awaited, ClientOptions, Error, Submission};

/// The longest idempotency key that the frontend takes, in bytes.
const LONGEST_KEY: usize = 256;

/// AMQP's delivery mode for messages that survive a restart of the broker.
const PERSISTENT: u8 = 2;

/// AMQP's reply code for a message that no queue takes.
const NO_ROUTE: u16 = 312;

/// Submits requests. Clones share their connections, which end with the last of them.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    options: ClientOptions,
    /// Host and port, for errors.
    address: String,
    channels: Pool<ChannelManager>,
    pending: Arc<Pending>,
    reply_queue: ShortString,
    stop: Arc<Notify>,
    replies: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("options", &self.options).field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The task says goodbye and ends by itself.
        self.stop.notify_one();
    }
}

impl Client {
    /// Connects, and declares this client's own exclusive reply queue. Call it inside a tokio runtime.
    ///
    /// Fails with [`Error::InvalidOptions`], [`Error::Unreachable`] or [`Error::NotAllowed`]. Whether a frontend has
    /// made the queue for requests is not asked here; a submission finds out.
    pub async fn connect(options: ClientOptions) -> Result<Self, Error> {
        let address = options.check()?;
        let channels = channels::pool(&options)?;
        let pending = Pending::new();
        let stop = Arc::new(Notify::new());
        let queue = format!("forecastle.replies.{}", Uuid::new_v4());
        let link = ReplyLink {
            options: options.clone(),
            address: address.clone(),
            queue: queue.clone(),
            pending: Arc::clone(&pending),
            stop: Arc::clone(&stop),
        };
        let session = link.open().await?;
        pending.up();
        let replies = Mutex::new(Some(tokio::spawn(link.run(session))));
        Ok(Self(Arc::new(Inner { options, address, channels, pending, reply_queue: queue.into(), stop, replies })))
    }

    /// Submits a request. `Ok` once the broker has it durably; whether the frontend takes it, the handle tells.
    ///
    /// An empty idempotency key is filled with a new one. The handle, and every error after which the broker may have
    /// the request, tells the key: submitting the same request with it again is safe. Safe to cancel, in the same
    /// sense.
    pub async fn submit(&self, mut request: v1::SubmitRequest) -> Result<Submission, Error> {
        if request.idempotency_key.is_empty() {
            request.idempotency_key = Uuid::new_v4().to_string();
        }
        let key = request.idempotency_key.clone();
        if key.len() > LONGEST_KEY {
            let reason = format!("{} bytes, the limit is {LONGEST_KEY}", key.len());
            return Err(Error::InvalidRequest { field: "idempotency_key", reason });
        }
        let correlation = correlation_id(&request)?;
        let mut properties = BasicProperties::default()
            .with_content_type(PROTOBUF.into())
            .with_delivery_mode(PERSISTENT)
            .with_reply_to(self.0.reply_queue.clone())
            .with_correlation_id(correlation.as_str().into());
        // The body has the key; the message-id is for people at the broker's console. The longest keys do not fit.
        if key.len() <= SHORT_STRING {
            properties = properties.with_message_id(key.as_str().into());
        }
        // Before publishing: a reply may come before the confirm.
        let waiter = self.register(&correlation).await?;
        self.publish(&key, &request.encode_to_vec(), properties).await?;
        Ok(Submission {
            key,
            waiter,
            accepted_timeout: self.0.options.accepted_timeout,
            finished_timeout: self.0.options.finished_timeout,
        })
    }

    /// Closes the connections in good order. Those who still wait for replies get [`Error::Closed`].
    pub async fn close(&self) {
        channels::close(&self.0.channels);
        self.0.stop.notify_one();
        let task = self.0.replies.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // It does not panic, and nobody aborts it but a runtime that ends.
            let _ = task.await;
        }
    }

    /// Begins to wait for replies; waits first while the link is down.
    async fn register(&self, correlation: &str) -> Result<Waiter, Error> {
        let mut link = self.0.pending.link();
        let registering = async {
            loop {
                match self.0.pending.register(correlation) {
                    Ok(waiter) => return Ok(waiter),
                    Err(Link::Closed) => return Err(Error::Closed),
                    // It may have come up, and gone again, in between: hence the loop.
                    Err(_) => {
                        link.wait_for(|link| !matches!(link, Link::Down(_))).await.map_err(|_| Error::Closed)?;
                    }
                }
            }
        };
        timeout(self.0.options.connect_timeout, registering).await.unwrap_or_else(|_| {
            let reason = match &*self.0.pending.link().borrow() {
                Link::Down(reason) => reason.clone(),
                Link::Up | Link::Closed => "the connection comes and goes".to_owned(),
            };
            Err(Error::Unreachable { address: self.0.address.clone(), reason })
        })
    }

    async fn publish(&self, key: &str, body: &[u8], properties: BasicProperties) -> Result<(), Error> {
        let lost = |error: lapin::Error| Error::ConnectionLost { key: key.to_owned(), reason: error.to_string() };
        let queue = &self.0.options.requests_queue;
        let mut held = self.0.channels.get().await.map_err(|error| self.no_channel(key, error))?;
        held.unanswered = true;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let answer = async {
            let confirm = held
                .channel
                .basic_publish(ShortString::default(), queue.as_str().into(), options, body, properties)
                .await?;
            confirm.await
        };
        let answer = timeout(self.0.options.confirm_timeout, answer)
            .await
            .map_err(|_| Error::Timeout { awaited: Awaited::Confirm, key: key.to_owned() })?
            .map_err(lost)?;
        held.unanswered = false;
        match answer {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Nack(None) => Err(Error::Full { queue: queue.clone(), key: key.to_owned() }),
            Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
                if returned.reply_code == NO_ROUTE {
                    Err(Error::NoFrontend { queue: queue.clone() })
                } else {
                    let reason = format!("the broker returned the message: {}", returned.reply_text);
                    Err(Error::ConnectionLost { key: key.to_owned(), reason })
                }
            }
            // Every channel of the pool is in confirm mode.
            Confirmation::NotRequested => {
                let reason = "the channel does not confirm".to_owned();
                Err(Error::ConnectionLost { key: key.to_owned(), reason })
            }
        }
    }

    /// Why the pool has no channel for us.
    fn no_channel(&self, key: &str, error: PoolError<deadpool_lapin::PoolError>) -> Error {
        let unreachable = |reason: String| Error::Unreachable { address: self.0.address.clone(), reason };
        match error {
            PoolError::Timeout(TimeoutType::Wait) => Error::Timeout { awaited: Awaited::Channel, key: key.to_owned() },
            PoolError::Closed | PoolError::Backend(PoolError::Closed) => Error::Closed,
            PoolError::Backend(PoolError::Backend(error)) => Error::connecting(&self.0.address, &error),
            PoolError::Timeout(_) | PoolError::Backend(PoolError::Timeout(_)) => {
                unreachable(format!("no connection and channel within {:?}", self.0.options.connect_timeout))
            }
            other => unreachable(other.to_string()),
        }
    }
}
