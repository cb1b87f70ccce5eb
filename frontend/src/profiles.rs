//! Profiles: the forecaster learns from the ledger's events, in their order, after their commit.
//!
//! What it learnt lives in memory; at start it is learnt again from the events that the ledger still has.

use std::sync::Arc;
use std::time::Duration;

use forecastle_forecast::{Declared, Ending, Features, Learner, Observation, ProfileForecaster};
use forecastle_protos::ids::RequestId;
use forecastle_protos::v1::{self, Outcome};
use forecastle_resources::Bytes;
use metrics::{counter, gauge};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::catalogue_store::CatalogueStore;
use crate::forecasting;
use crate::ledger::{Error, EventKind, Ledger, RecordedEvent};
use crate::metric_definitions::{ATTEMPTS_SIZED, KILL_OBJECTIVE};

/// Events learnt between two looks at whether to stop.
const PAGE: u32 = 1000;

/// The service.
pub struct Profiles {
    /// Where events come from.
    pub ledger: Arc<dyn Ledger>,
    /// What owners say of units.
    pub catalogue: Arc<CatalogueStore>,
    /// Who learns.
    pub learner: Arc<ProfileForecaster>,
    /// Wakes it.
    pub recorded: Arc<Notify>,
    seen: i64,
    /// True once what happened before the start is learnt: from then on runs are counted.
    live: bool,
    /// The parameters of the request that was seen last: events of one request come together.
    last: Option<(RequestId, Option<pbjson_types::Struct>)>,
}

impl Profiles {
    /// A service that has learnt nothing.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        catalogue: Arc<CatalogueStore>,
        learner: Arc<ProfileForecaster>,
        recorded: Arc<Notify>,
    ) -> Self {
        Self { ledger, catalogue, learner, recorded, seen: 0, live: false, last: None }
    }

    /// Learns what the ledger has now. Called once before anything is released.
    pub async fn catch_up(&mut self) -> Result<usize, Error> {
        let mut learnt = 0;
        loop {
            let events = self.ledger.events_after(self.seen, PAGE).await?;
            for event in &events {
                learnt += usize::from(self.learn(event).await?);
                self.seen = event.seq;
            }
            if events.len() < PAGE as usize {
                return Ok(learnt);
            }
        }
    }

    /// Learns until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        self.live = true;
        let recorded = Arc::clone(&self.recorded);
        loop {
            let notified = recorded.notified();
            if let Err(error) = self.catch_up().await {
                tracing::error!(%error, "learning waits for the ledger");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = notified => {}
                // Catches what was recorded between reading and waiting.
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    /// What was promised of kills for memory, and what it came to.
    fn report(&self, observation: &Observation) {
        let memory = match observation.ending {
            Ending::Succeeded => "enough",
            Ending::OutOfMemory { .. } => "killed",
            Ending::Other => return,
        };
        let request_type = &observation.features.request_type;
        gauge!(KILL_OBJECTIVE, "type" => request_type.clone()).set(self.learner.objective(request_type));
        counter!(ATTEMPTS_SIZED, "type" => request_type.clone(), "memory" => memory).increment(1);
    }

    async fn learn(&mut self, recorded: &RecordedEvent) -> Result<bool, Error> {
        let EventKind::Completed(completed) = &recorded.event.kind else { return Ok(false) };
        let request = recorded.event.shard.request;
        if self.last.as_ref().is_none_or(|(known, _)| *known != request) {
            let parameters = self.ledger.head(request).await?.and_then(|head| head.body.parameters);
            self.last = Some((request, parameters));
        }
        let parameters = self.last.as_ref().and_then(|(_, parameters)| parameters.as_ref());
        // Of a unit that is gone nothing is declared any more.
        let declared = self.catalogue.current().unit(&completed.unit).map(forecasting::declared).unwrap_or_default();
        match observation(completed, parameters, declared) {
            Some(observation) => {
                self.learner.observe(&observation);
                if self.live {
                    self.report(&observation);
                }
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

/// What a run teaches; `None` if it teaches nothing (it never ran, or its end was not its own doing).
fn observation(
    completed: &v1::Completed,
    parameters: Option<&pbjson_types::Struct>,
    declared: Declared,
) -> Option<Observation> {
    let usage = completed.usage.as_ref()?;
    let ending = match completed.outcome() {
        Outcome::Succeeded => Ending::Succeeded,
        Outcome::OutOfMemory => {
            // The lease may have grown, and that was still too little; or it had shrunk, which says less.
            let last = completed.adjustments.last().and_then(|change| change.to.as_ref());
            let vector = last.or_else(|| completed.reservation.as_ref()?.vector.as_ref())?;
            Ending::OutOfMemory { limit: Bytes(vector.memory_bytes) }
        }
        Outcome::TaskError | Outcome::PermanentError | Outcome::Timeout => Ending::Other,
        Outcome::Unspecified
        | Outcome::WorkerLost
        | Outcome::Preempted
        | Outcome::Drained
        | Outcome::Cancelled
        | Outcome::Unsupported => return None,
    };
    Some(Observation {
        features: Features {
            request_type: completed.request_type.clone(),
            unit: completed.unit.clone(),
            tenant: completed.tenant.clone(),
            input_bytes: completed.input_bytes,
            input_items: completed.input_items,
            parameters: forecasting::parameters(parameters),
            node_class: Some(completed.node_class.clone()).filter(|class| !class.is_empty()),
        },
        declared,
        ending,
        memory: Bytes(usage.memory_bytes),
        cpu_time: Duration::from_millis(usage.cpu_ms),
        io_bytes: usage.io_read_bytes.saturating_add(usage.io_write_bytes),
        duration: Duration::from_millis(usage.duration_ms),
    })
}
