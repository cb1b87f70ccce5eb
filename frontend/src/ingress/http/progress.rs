//! Following a request: server-sent events until it ends.
//!
//! The broadcast of changes only wakes; what is sent is read from the ledger each time. So a message that was missed,
//! or many that were (a watcher that lags), costs nothing but a later look, and a slow look that comes by itself finds
//! what nobody told.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use forecastle_protos::ids::RequestId;
use forecastle_protos::v1::{self, RequestState};
use futures::Stream;
use futures::stream;
use serde::Serialize;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::Serving;
use super::authentication::Tenant;
use super::failure::Failure;
use super::parameter::Given;
use super::requests::status_of;
use crate::ledger::{Error as LedgerError, Ledger};

/// The shortest time between two events.
const SPACING: Duration = Duration::from_millis(100);

/// How often the ledger is read although nobody told of a change.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How often a comment keeps the connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Follows a request.
pub(super) async fn watch(
    State(serving): State<Arc<Serving>>,
    Extension(tenant): Extension<Tenant>,
    given: Given,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let request = given.request_id()?;
    // Before the first look, so that no change falls between.
    let changes = serving.api.progress.subscribe();
    let status = status_of(&*serving.api.ledger, &tenant, request).await?;
    let watcher = Watcher {
        ledger: Arc::clone(&serving.api.ledger),
        request,
        changes,
        stop: serving.stop.clone(),
        last: status,
        next: Next::Status,
        sent: Instant::now(),
    };
    let events = stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next_event().await?;
        Some((Ok(event.written()), watcher))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// An event, before it is written.
#[derive(Debug, PartialEq)]
enum Told {
    Status(v1::RequestStatus),
    Finished(v1::Finished),
}

impl Told {
    fn written(&self) -> Event {
        fn data(name: &str, message: &impl Serialize) -> Event {
            match serde_json::to_string(message) {
                Ok(text) => Event::default().event(name).data(text),
                Err(error) => {
                    tracing::error!(%error, "an event cannot be written as JSON");
                    Event::default().comment("an event cannot be written as JSON")
                }
            }
        }
        match self {
            Self::Status(status) => data("status", status),
            Self::Finished(finished) => data("finished", finished),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The status that was just read.
    Status,
    /// Whatever changes.
    Change,
    /// That it has ended.
    Finished,
    /// Nothing.
    Nothing,
}

struct Watcher {
    ledger: Arc<dyn Ledger>,
    request: RequestId,
    changes: broadcast::Receiver<RequestId>,
    stop: CancellationToken,
    last: v1::RequestStatus,
    next: Next,
    /// When the last event was sent.
    sent: Instant,
}

impl Watcher {
    async fn next_event(&mut self) -> Option<Told> {
        loop {
            match self.next {
                Next::Nothing => return None,
                Next::Finished => {
                    self.next = Next::Nothing;
                    return Some(Told::Finished(v1::Finished { status: Some(self.last.clone()) }));
                }
                Next::Status => {
                    self.next = if has_ended(self.last.state()) { Next::Finished } else { Next::Change };
                    self.sent = Instant::now();
                    return Some(Told::Status(self.last.clone()));
                }
                Next::Change => self.next = self.look().await,
            }
        }
    }

    /// Waits for a change and reads it.
    async fn look(&mut self) -> Next {
        let stop = self.stop.clone();
        if stop.run_until_cancelled(self.wait()).await.is_none() {
            return Next::Nothing;
        }
        match self.ledger.status(self.request).await {
            Ok(Some(status)) if status == self.last => Next::Change,
            Ok(Some(status)) => {
                self.last = status;
                Next::Status
            }
            // Retention has removed it.
            Ok(None) | Err(LedgerError::Closed) => Next::Nothing,
            Err(error) => {
                tracing::warn!(%error, "a watcher waits for the ledger");
                Next::Change
            }
        }
    }

    /// Until somebody tells of a change, or it is time to look, but not before the next event may be sent.
    async fn wait(&mut self) {
        let until = Instant::now() + LOOK_EVERY;
        while let Ok(told) = tokio::time::timeout_at(until, self.changes.recv()).await {
            match told {
                Ok(request) if request != self.request => {}
                Ok(_) | Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => {
                    tokio::time::sleep_until(until).await;
                    break;
                }
            }
        }
        tokio::time::sleep_until(self.sent + SPACING).await;
    }
}

fn has_ended(state: RequestState) -> bool {
    matches!(state, RequestState::Succeeded | RequestState::Failed | RequestState::Cancelled)
}
