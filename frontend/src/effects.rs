//! What a change in the ledger means for the rest of the frontend. Everything here can be derived from the ledger
//! again, so that a crash between a commit and its effects loses nothing.

use std::sync::Arc;

use forecastle_protos::ids::RequestId;
use tokio::sync::{Notify, broadcast, mpsc};

use crate::control::Control;
use crate::dispatcher::DispatcherHandle;
use crate::ledger::Changes;

/// Tells everyone concerned. Cheap to clone.
#[derive(Clone)]
pub struct Effects {
    /// Releases what became ready.
    pub dispatcher: DispatcherHandle,
    /// Tells workers to stop unwanted runs.
    pub control: Control,
    /// Answers producers of requests that ended.
    pub finished: mpsc::UnboundedSender<RequestId>,
    /// Wakes those who read the ledger's events.
    pub recorded: Arc<Notify>,
    /// Requests whose status changed, for those who watch.
    pub progress: broadcast::Sender<RequestId>,
}

impl Effects {
    /// Tells everyone concerned about `changes`, which are committed.
    pub async fn spread(&self, changes: Changes) {
        if changes.recorded > 0 {
            self.recorded.notify_waiters();
        }
        for request in &changes.touched {
            // An error means that nobody is watching.
            self.progress.send(*request).ok();
        }
        for request in &changes.finished {
            // Bounded by the ledger: one entry for each request that ended. The receiver ends at shutdown only, and
            // what is owed is read again at start.
            if self.finished.send(*request).is_err() {
                tracing::debug!(%request, "replies have stopped; the next life sends what is owed");
            }
        }
        self.control.stop_runs(&changes.unwanted, "superseded").await;
        self.dispatcher.changed(changes).await;
    }
}
