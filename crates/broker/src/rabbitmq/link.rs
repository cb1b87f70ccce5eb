//! One supervised connection: a task owns it, tells everybody when it is up, and makes a new one when it is lost.
//!
//! Each connection has a number, its *epoch*. Whoever works on a connection of an epoch that has passed finds every
//! request refused by lapin, and asks the link for the next.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::declaration::{Declarations, declare_each};
use crate::{Error, Topology, metric_definitions};

/// lapin has no event for a connection that ended in good order, so its state is looked at as well, this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long to wait for the broker's goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a connection is for. Alarms of the broker block connections that publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Publish,
    Consume,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
        }
    }
}

/// A connection of one epoch.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) epoch: u64,
    pub(crate) connection: Arc<Connection>,
}

impl Session {
    pub(crate) async fn channel(&self) -> Result<Channel, lapin::Error> {
        self.connection.create_channel().await
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct LinkState {
    session: Option<Session>,
    blocked: bool,
    closed: bool,
}

/// What others see of a supervised connection.
#[derive(Debug, Clone)]
pub(crate) struct Link(watch::Receiver<LinkState>);

impl Link {
    /// The connection; waits until there is one.
    pub(crate) async fn session(&self) -> Result<Session, Error> {
        let mut watched = self.0.clone();
        let state = watched.wait_for(|state| state.closed || state.session.is_some()).await;
        state.ok().and_then(|state| state.session.clone()).ok_or(Error::Closed)
    }

    /// Waits until there is a connection that the broker does not block.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        let is_ready = |state: &LinkState| state.closed || (state.session.is_some() && !state.blocked);
        // The common case, without a copy of the receiver.
        let closed = {
            let state = self.0.borrow();
            is_ready(&state).then_some(state.closed)
        };
        let closed = match closed {
            Some(closed) => closed,
            None => self.0.clone().wait_for(is_ready).await.map_or(true, |state| state.closed),
        };
        if closed { Err(Error::Closed) } else { Ok(()) }
    }

    /// Waits until the connection of `epoch` is gone.
    pub(crate) async fn lost(&self, epoch: u64) {
        let mut watched = self.0.clone();
        // An error means that the supervisor is gone, and with it the connection.
        let _ = watched
            .wait_for(|state| state.closed || state.session.as_ref().is_none_or(|session| session.epoch != epoch))
            .await;
    }

    pub(crate) fn is_up(&self) -> bool {
        self.0.borrow().session.is_some()
    }
}

/// Makes connections.
#[derive(Debug)]
pub(crate) struct Dialler {
    pub(crate) uri: AMQPUri,
    pub(crate) tls: OwnedTLSConfig,
    pub(crate) name: String,
    pub(crate) attempt_timeout: Duration,
}

impl Dialler {
    /// One attempt.
    pub(crate) async fn dial(&self) -> Result<Connection, lapin::Error> {
        // Without lapin's own recovery, which does not cover channel errors.
        let properties = ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let runtime = lapin::runtime::default_runtime()?;
        let attempt = Connection::connect_uri_with_config(self.uri.clone(), properties, self.tls.clone(), runtime);
        timeout(self.attempt_timeout, attempt).await.unwrap_or_else(|_| {
            let reason = format!("no answer within {} s", self.attempt_timeout.as_secs());
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, reason).into())
        })
    }
}

/// Owns one connection after the other.
pub(crate) struct Supervisor {
    pub(crate) role: Role,
    pub(crate) dialler: Dialler,
    pub(crate) declarations: Arc<Declarations>,
    pub(crate) longest_backoff: Duration,
    pub(crate) stop: CancellationToken,
}

impl Supervisor {
    /// Serves `first`, and then others, until told to stop. Answers what others see, and the task to spawn.
    pub(crate) fn start(self, first: Connection) -> (Link, impl Future<Output = ()> + Send + 'static) {
        let session = Session { epoch: 1, connection: Arc::new(first) };
        let (state, watched) = watch::channel(LinkState { session: Some(session.clone()), ..LinkState::default() });
        (Link(watched), self.run(session, state))
    }

    async fn run(self, first: Session, state: watch::Sender<LinkState>) {
        let role = self.role.name();
        let mut session = first;
        let mut undeclared = Topology::default();
        loop {
            let lost = self.serve(&session, &state, undeclared).await;
            state.send_modify(|state| {
                state.session = None;
                state.blocked = false;
            });
            metrics::gauge!(metric_definitions::BLOCKED, "connection" => role).set(0.0);
            let Some(reason) = lost else {
                // A blocked connection does not even say goodbye.
                let _ = timeout(GOODBYE, session.connection.close(200, "closed".into())).await;
                break;
            };
            tracing::warn!(connection = role, epoch = session.epoch, reason, "lost the connection to the broker");
            let epoch = session.epoch + 1;
            drop(session);
            let Some((connection, left)) = self.stop.run_until_cancelled(self.reconnect()).await else { break };
            undeclared = left;
            session = Session { epoch, connection: Arc::new(connection) };
            metrics::counter!(metric_definitions::RECONNECTS, "connection" => role).increment(1);
            tracing::info!(connection = role, epoch, "connected to the broker again");
        }
        state.send_modify(|state| state.closed = true);
    }

    /// Announces `session` and watches over it. Answers why it was lost, or `None` when told to stop.
    async fn serve(
        &self,
        session: &Session,
        state: &watch::Sender<LinkState>,
        mut undeclared: Topology,
    ) -> Option<String> {
        let connection = &session.connection;
        let mut events = Box::pin(connection.events_listener());
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut backoff = Backoff::new(self.longest_backoff);
        let mut declare_at = Instant::now() + backoff.delay();
        state.send_modify(|state| state.session = Some(session.clone()));
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => {
                        tracing::warn!(connection = self.role.name(), reason, "the broker blocks publishers");
                        self.set_blocked(state, true);
                    }
                    Some(Event::ConnectionUnblocked) => {
                        tracing::info!(connection = self.role.name(), "the broker lets publishers go on");
                        self.set_blocked(state, false);
                    }
                    // Errors of channels are events as well; those who own the channels see to them.
                    Some(Event::Error(error)) if !connection.status().connected() => return Some(error.to_string()),
                    Some(_) => {}
                    None => return Some("the connection ended".to_owned()),
                },
                _ = look.tick() => if !connection.status().connected() {
                    return Some("the connection ended".to_owned());
                },
                () = tokio::time::sleep_until(declare_at), if undeclared != Topology::default() => {
                    undeclared = declare_each(connection, &undeclared).await;
                    declare_at = Instant::now() + backoff.delay();
                }
            }
        }
    }

    fn set_blocked(&self, state: &watch::Sender<LinkState>, blocked: bool) {
        state.send_modify(|state| state.blocked = blocked);
        metrics::gauge!(metric_definitions::BLOCKED, "connection" => self.role.name())
            .set(f64::from(u8::from(blocked)));
    }

    /// A new connection with the topology declared on it, and what could not be declared yet: an exclusive queue, for
    /// one, while the broker has not noticed that its former connection is gone.
    async fn reconnect(&self) -> (Connection, Topology) {
        let mut backoff = Backoff::new(self.longest_backoff);
        loop {
            // Even the first attempt waits a little: a broker that restarts drops all its clients at the same moment.
            tokio::time::sleep(backoff.delay()).await;
            match self.dialler.dial().await {
                Ok(connection) => {
                    let undeclared = declare_each(&connection, &self.declarations.of_role(self.role)).await;
                    if connection.status().connected() {
                        return (connection, undeclared);
                    }
                }
                Err(error) => tracing::warn!(connection = self.role.name(), %error, "cannot reach the broker yet"),
            }
        }
    }
}
