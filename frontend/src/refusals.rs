//! Refusals: shards that no worker could ever hold fail, and say why.

use std::sync::Arc;
use std::time::Duration;

use forecastle_protos::ids::ShardId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::effects::Effects;
use crate::ledger::Ledger;

/// The code of what is refused.
pub const INFEASIBLE: &str = "infeasible";

/// The pause after the ledger could not be reached.
const PAUSE: Duration = Duration::from_millis(500);

/// The service.
pub struct Refusals {
    /// The truth.
    pub ledger: Arc<dyn Ledger>,
    /// Who hears of changes.
    pub effects: Effects,
    /// What the dispatcher gave up, and why.
    pub infeasible: mpsc::UnboundedReceiver<(ShardId, String)>,
}

impl Refusals {
    /// Refuses until told to stop. What is lost then is found to be infeasible again.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(Some((shard, why))) = stop.run_until_cancelled(self.infeasible.recv()).await {
            tracing::warn!(%shard, why, "a shard is infeasible");
            loop {
                match self.ledger.refuse(shard, INFEASIBLE, &why, now_ms()).await {
                    Ok(changes) => break self.effects.spread(changes).await,
                    Err(error) => {
                        tracing::error!(%error, "a refusal waits for the ledger");
                        if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                            return;
                        }
                    }
                }
            }
        }
    }
}
