//! The sweeper: finds runs whose worker is lost, and repeats to the fleet which runs are unwanted.
//!
//! It takes no input but the ledger and the load reports, and doing the same twice changes nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forecastle_broker::Broker;
use forecastle_protos::ids::WorkerId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::control::Control;
use crate::effects::Effects;
use crate::fleet::FleetView;
use crate::ledger::{Error, Ledger, LiveRun, RunEvent};
use crate::metric_definitions::RUNS_LOST;

/// The service.
pub struct Sweeper {
    /// The truth.
    pub ledger: Arc<dyn Ledger>,
    /// Who lives.
    pub fleet: watch::Receiver<Arc<FleetView>>,
    /// Who hears of changes.
    pub effects: Effects,
    /// Tells workers to stop.
    pub control: Control,
    /// While it is gone nobody can be heard, and nobody is lost.
    pub broker: Arc<dyn Broker>,
    /// How long after its last load report a worker is lost.
    pub grace: Duration,
}

impl Sweeper {
    /// Sweeps until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        // A frontend that has just started, or was cut off, has heard nobody: it waits one whole grace before it
        // declares anyone lost.
        let mut listening_since = Instant::now();
        let mut every =
            tokio::time::interval((self.grace / 5).clamp(Duration::from_millis(100), Duration::from_secs(5)));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            if !self.broker.is_connected() {
                listening_since = Instant::now();
                continue;
            }
            if let Err(error) = self.sweep(listening_since).await {
                tracing::error!(%error, "sweeping waits for the ledger");
            }
        }
    }

    async fn sweep(&self, listening_since: Instant) -> Result<(), Error> {
        let runs = self.ledger.live_runs().await?;
        let unwanted: Vec<_> = runs.iter().filter(|run| run.unwanted).map(|run| run.run).collect();
        self.control.stop_runs(&unwanted, "superseded").await;
        if listening_since.elapsed() < self.grace {
            return Ok(());
        }
        let view = Arc::clone(&self.fleet.borrow());
        let lost = lost(&view, &runs, self.grace, now_ms());
        if lost.is_empty() {
            return Ok(());
        }
        let workers: HashSet<_> = lost.iter().map(|run| run.worker).collect();
        tracing::warn!(runs = lost.len(), workers = workers.len(), "workers are lost; their runs have ended");
        metrics::counter!(RUNS_LOST).increment(lost.len() as u64);
        let events = lost.iter().map(|run| {
            let error = format!("worker {} has sent no load report for {:.0?}", run.worker, self.grace);
            RunEvent::worker_lost(run.run, run.shard, run.attempt, run.worker, now_ms(), &error)
        });
        let changes = self.ledger.apply(events.collect(), now_ms()).await?;
        self.effects.spread(changes).await;
        Ok(())
    }
}

/// The runs whose worker has not been heard of for `grace`. A run counts only once its claim is as old as that: the
/// worker's first report may still be under way.
fn lost(view: &FleetView, runs: &[LiveRun], grace: Duration, now_ms: u64) -> Vec<LiveRun> {
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let alive = |worker: &WorkerId| view.workers.get(worker).is_some_and(|w| w.heard.elapsed() < grace);
    runs.iter()
        .filter(|run| now_ms.saturating_sub(run.claimed_ms) >= grace_ms && !alive(&run.worker))
        .copied()
        .collect()
}
