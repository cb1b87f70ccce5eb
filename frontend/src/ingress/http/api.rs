//! What the routes answer from.

use std::sync::Arc;

use bytes::Bytes;
use forecastle_protos::ids::RequestId;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::failure::Failure;
use crate::catalogue_store::CatalogueStore;
use crate::effects::Effects;
use crate::fleet::FleetView;
use crate::forecasting::Sizing;
use crate::intake::Intake;
use crate::ledger::Ledger;
use crate::tokens::Tokens;

/// The parts of the frontend behind the API.
pub struct Api {
    /// The truth.
    pub ledger: Arc<dyn Ledger>,
    /// Checks and admits.
    pub intake: Arc<Intake>,
    /// What can be asked for.
    pub catalogue: Arc<CatalogueStore>,
    /// What a shard that waits would reserve.
    pub sizing: Sizing,
    /// Who lives.
    pub fleet: watch::Receiver<Arc<FleetView>>,
    /// Who hears of changes.
    pub effects: Effects,
    /// Requests whose status changed.
    pub progress: broadcast::Sender<RequestId>,
    /// Who may come in.
    pub tokens: Tokens,
}

/// What every handler gets.
pub(super) struct Serving {
    pub(super) api: Api,
    /// Ends event streams.
    pub(super) stop: CancellationToken,
    /// What must be finished although the client has gone.
    pub(super) unfinished: TaskTracker,
    /// The largest body in bytes.
    pub(super) max_body: usize,
    /// The OpenAPI document.
    pub(super) document: Bytes,
}

impl Serving {
    /// Runs what commits to the ledger and then tells others. A client that hangs up in between drops its handler,
    /// and nobody would be told; so this runs in a task of its own, which the server waits for before it ends.
    pub(super) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failure> {
        self.unfinished.spawn(work).await.map_err(|error| {
            tracing::error!(%error, "a request was not finished");
            Failure::internal()
        })
    }
}
