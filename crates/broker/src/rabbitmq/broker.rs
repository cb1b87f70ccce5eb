//! The handle to RabbitMQ: two supervised connections and what was declared through them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::Connection;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backoff::Backoff;
use super::consumer::{self, Surroundings};
use super::declaration::{Declarations, Undeclared, declare};
use super::failure::{Failure, NOT_FOUND};
use super::link::{Dialler, Link, Role, Session, Supervisor};
use super::message_codec::short;
use super::options::{Options, address};
use super::publisher;
use crate::{Broker, ConsumeOptions, Consumer, Error, Publisher, QueueDepth, Topology, metric_definitions};

/// The most time between two attempts to connect at the start, where somebody is waiting.
const START_BACKOFF: Duration = Duration::from_secs(1);

/// RabbitMQ.
pub struct RabbitMq(Arc<Core>);

/// Lives as long as the handle, a publisher or a consumer does. Dropping the last of them without
/// [`Broker::close`] closes the connections without waiting for anything.
struct Core {
    publish: Link,
    consume: Link,
    declarations: Arc<Declarations>,
    options: Options,
    /// Publishers and consumers finish.
    closing: CancellationToken,
    /// Connections close.
    stop: CancellationToken,
    workers: TaskTracker,
    supervisors: TaskTracker,
}

impl Drop for Core {
    fn drop(&mut self) {
        self.closing.cancel();
        self.stop.cancel();
    }
}

impl RabbitMq {
    /// Connects. Keeps trying for [`Options::connect_timeout_seconds`] and is [`Error::Unreachable`] then; a wrong
    /// configuration, and a broker that refuses the login, fail at once. Once connected, it reconnects for ever.
    pub async fn connect(options: Options) -> Result<Arc<dyn Broker>, Error> {
        options.validate()?;
        let mut uri = options.url.parse()?;
        uri.query.heartbeat = Some(options.heartbeat_seconds);
        let tls = options.tls_config()?;
        metric_definitions::describe();

        let dialler = |role: Role| Dialler {
            uri: uri.clone(),
            tls: tls.clone(),
            name: format!("{} {}", options.connection_name, role.name()),
            attempt_timeout: options.connect_timeout(),
        };
        let (publish, consume) = (dialler(Role::Publish), dialler(Role::Consume));
        let broker = address(&uri);
        let (publishing, consuming) = tokio::try_join!(
            dial_at_start(&publish, &broker, options.connect_timeout()),
            dial_at_start(&consume, &broker, options.connect_timeout()),
        )?;

        let declarations = Arc::new(Declarations::default());
        let (stop, supervisors) = (CancellationToken::new(), TaskTracker::new());
        let supervise = |role, dialler, connection| {
            let supervisor = Supervisor {
                role,
                dialler,
                declarations: Arc::clone(&declarations),
                longest_backoff: options.reconnect_interval(),
                stop: stop.clone(),
            };
            let (link, task) = supervisor.start(connection);
            supervisors.spawn(task);
            link
        };
        let core = Core {
            publish: supervise(Role::Publish, publish, publishing),
            consume: supervise(Role::Consume, consume, consuming),
            declarations: Arc::clone(&declarations),
            closing: CancellationToken::new(),
            stop: stop.clone(),
            workers: TaskTracker::new(),
            supervisors: supervisors.clone(),
            options,
        };
        tracing::info!(broker, "connected to the broker");
        Ok(Arc::new(Self(Arc::new(core))))
    }

    /// Asks `request` of the consuming connection, where exclusive queues live; again and again while connections are
    /// lost under it.
    async fn ask<T, F>(&self, request: impl Fn(Session) -> F + Send) -> Result<T, (u16, Error)>
    where
        F: Future<Output = Result<T, Undeclared>> + Send,
    {
        let mut backoff = Backoff::new(self.0.options.reconnect_interval());
        loop {
            if self.0.closing.is_cancelled() {
                return Err((0, Error::Closed));
            }
            let session = self.0.consume.session().await.map_err(|error| (0, error))?;
            match request(session).await {
                Ok(answer) => return Ok(answer),
                Err(Undeclared { object, failure: Failure::Refused { code, reason } }) => {
                    return Err((code, Error::Refused { object, reason }));
                }
                Err(Undeclared { object, failure: Failure::Lost(reason) }) => {
                    tracing::debug!(object, reason, "lost the connection under a request");
                    sleep(backoff.delay()).await;
                }
            }
        }
    }
}

/// Dials until it works or the time is over.
async fn dial_at_start(dialler: &Dialler, broker: &str, patience: Duration) -> Result<Connection, Error> {
    let mut last_error = format!("no answer within {} s", patience.as_secs());
    let attempts = async {
        let mut backoff = Backoff::new(START_BACKOFF);
        loop {
            let error = match dialler.dial().await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            last_error = error.to_string();
            if let Failure::Refused { reason, .. } = Failure::from(error) {
                return Err(Error::Refused { object: format!("the login at {broker}"), reason });
            }
            tracing::warn!(broker, error = last_error, "cannot reach the broker yet");
            sleep(backoff.delay()).await;
        }
    };
    let outcome = timeout(patience, attempts).await;
    outcome.unwrap_or_else(|_| Err(Error::Unreachable { address: broker.to_owned(), reason: last_error }))
}

#[async_trait]
impl Broker for RabbitMq {
    async fn declare(&self, topology: &Topology) -> Result<(), Error> {
        self.ask(|session| async move { declare(&session.connection, topology).await })
            .await
            .map_err(|(_, error)| error)?;
        self.0.declarations.remember(topology);
        Ok(())
    }

    async fn publisher(&self, window: usize) -> Result<Arc<dyn Publisher>, Error> {
        if self.0.closing.is_cancelled() {
            return Err(Error::Closed);
        }
        let (publisher, task) = publisher::start(
            self.0.publish.clone(),
            window,
            self.0.options.max_body.get(),
            self.0.options.reconnect_interval(),
            self.0.closing.clone(),
            Arc::clone(&self.0),
        );
        self.0.workers.spawn(task);
        Ok(Arc::new(publisher))
    }

    async fn consumer(&self, queue: &str, options: ConsumeOptions) -> Result<Box<dyn Consumer>, Error> {
        if self.0.closing.is_cancelled() {
            return Err(Error::Closed);
        }
        let surroundings = Surroundings {
            link: self.0.consume.clone(),
            declarations: Arc::clone(&self.0.declarations),
            longest_backoff: self.0.options.reconnect_interval(),
            closing: self.0.closing.child_token(),
            workers: self.0.workers.clone(),
        };
        Ok(Box::new(consumer::start(surroundings, queue, options, Arc::clone(&self.0)).await?))
    }

    async fn depth(&self, queue: &str) -> Result<Option<QueueDepth>, Error> {
        let name = &short(queue)?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = self.ask(|session| async move {
            let undeclared = |error: lapin::Error| Undeclared { object: queue.to_owned(), failure: error.into() };
            let channel = session.channel().await.map_err(undeclared)?;
            channel.queue_declare(name.clone(), options, FieldTable::default()).await.map_err(undeclared)
        });
        match asked.await {
            Ok(found) => Ok(Some(QueueDepth { ready: found.message_count(), consumers: found.consumer_count() })),
            Err((NOT_FOUND, _)) => Ok(None),
            Err((_, error)) => Err(error),
        }
    }

    async fn delete_queue(&self, queue: &str) -> Result<(), Error> {
        let name = &short(queue)?;
        self.0.declarations.forget(queue);
        let asked = self.ask(|session| async move {
            let undeclared = |error: lapin::Error| Undeclared { object: queue.to_owned(), failure: error.into() };
            let channel = session.channel().await.map_err(undeclared)?;
            channel.queue_delete(name.clone(), QueueDeleteOptions::default()).await.map_err(undeclared)
        });
        match asked.await {
            Ok(_) | Err((NOT_FOUND, _)) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }

    fn is_connected(&self) -> bool {
        self.0.publish.is_up() && self.0.consume.is_up()
    }

    async fn close(&self) {
        let core = &self.0;
        core.closing.cancel();
        core.workers.close();
        if timeout(core.options.close_timeout(), core.workers.wait()).await.is_err() {
            tracing::warn!("closing the broker's connections with confirms or consumers outstanding");
        }
        core.stop.cancel();
        core.supervisors.close();
        core.supervisors.wait().await;
    }
}
