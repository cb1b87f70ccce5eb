//! Control messages: what the frontend tells the fleet.
//!
//! They are advice that the frontend repeats until it sees the effect, so one that is lost changes nothing for long.

use std::sync::Arc;

use forecastle_admission::Shares;
use forecastle_broker::{Broker, ConsumeOptions, ConsumerEvent};
use forecastle_protos::ids::{RunId, WorkerId};
use forecastle_protos::v1::{self, control_message::Kind};
use forecastle_resources::{Priority, ResourceVector};
use forecastle_service::Shutdown;
use metrics::counter;
use prost::Message as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::claimer::ClaimerHandle;
use crate::demand;
use crate::execution::Executor;
use crate::leases::Leases;
use crate::metric_definitions::CONTROLS;
use crate::queues::open_consumer;
use crate::sweeper;

/// The service.
pub(crate) struct Control {
    pub(crate) worker: WorkerId,
    pub(crate) fleet: String,
    pub(crate) capacity: ResourceVector,
    pub(crate) claimer: ClaimerHandle,
    pub(crate) leases: Leases,
    pub(crate) executor: Arc<dyn Executor>,
    /// Asks for a load report.
    pub(crate) report: Arc<Notify>,
    pub(crate) shutdown: Shutdown,
}

/// The queue on which a worker hears them.
pub(crate) fn queue(worker: WorkerId) -> String {
    format!("forecastle.control.worker.{worker}")
}

impl Control {
    /// Listens until told to stop, or until the broker is closed.
    pub(crate) async fn run(self, broker: Arc<dyn Broker>, stop: CancellationToken) {
        let options = ConsumeOptions { window: 64, exclusive: true, tag: format!("forecastle-worker {}", self.worker) };
        let queue = queue(self.worker);
        let opening = open_consumer(&*broker, &queue, &options);
        let Some(Some(mut consumer)) = stop.run_until_cancelled(opening).await else { return };
        while let Some(Some(event)) = stop.run_until_cancelled(consumer.next()).await {
            let ConsumerEvent::Delivery(delivery) = event else { continue };
            match v1::ControlMessage::decode(&*delivery.message.body) {
                Ok(message) => self.hear(message.kind).await,
                Err(error) => unreadable(&error.to_string()),
            }
            delivery.ack().await;
        }
        consumer.close().await;
    }

    async fn hear(&self, kind: Option<Kind>) {
        match kind {
            Some(Kind::Cancel(cancel)) => {
                counter!(CONTROLS, "kind" => "cancel").increment(1);
                let runs: Vec<RunId> = cancel.run_ids.iter().filter_map(|id| id.parse().ok()).collect();
                if runs.len() < cancel.run_ids.len() {
                    unreadable("some run ids to cancel are no run ids");
                }
                self.claimer.cancel(runs, cancel.reason).await;
            }
            Some(Kind::SetShares(set)) => {
                if self.is_meant_by(&set.worker_id, &set.fleet) {
                    counter!(CONTROLS, "kind" => "set-shares").increment(1);
                    match self.set_shares(&set.shares) {
                        Ok(()) => tracing::info!("priorities have other shares, as the frontend asks"),
                        Err(error) => tracing::warn!(error, "shares stay as they are"),
                    }
                    // Whoever asked sees the effect, or that there is none.
                    self.report.notify_one();
                }
            }
            Some(Kind::Drain(drain)) => {
                if self.is_meant_by(&drain.worker_id, &drain.fleet) {
                    counter!(CONTROLS, "kind" => "drain").increment(1);
                    tracing::info!("draining, as the frontend asks");
                    self.shutdown.request_drain();
                }
            }
            Some(Kind::ReportNow(_)) => {
                counter!(CONTROLS, "kind" => "report-now").increment(1);
                self.report.notify_one();
            }
            Some(Kind::DiscardOutputs(discard)) => {
                counter!(CONTROLS, "kind" => "discard-outputs").increment(1);
                if !sweeper::discard_outputs(Arc::clone(&self.executor), &discard).await {
                    unreadable("some shards or runs whose outputs matter cannot be read");
                }
            }
            Some(Kind::Demand(demand)) => {
                if demand.fleet == self.fleet {
                    counter!(CONTROLS, "kind" => "demand").increment(1);
                    let (expected, for_so_long) = demand::expected_here(&demand, &self.capacity);
                    self.executor.expect(expected, for_so_long);
                }
            }
            None => unreadable("a control message of a kind that this version does not know"),
        }
    }

    /// This worker by name, or all of its fleet; a message that names neither means nobody.
    fn is_meant_by(&self, worker_id: &str, fleet: &str) -> bool {
        if worker_id.is_empty() { fleet == self.fleet } else { worker_id == self.worker.to_string() }
    }

    fn set_shares(&self, settings: &[v1::ShareSetting]) -> Result<(), String> {
        let read = |setting: &v1::ShareSetting| {
            let priority = setting.priority.parse::<Priority>().map_err(|error| error.to_string())?;
            let vector =
                |given: &Option<v1::ResourceVector>| given.as_ref().map(ResourceVector::from).unwrap_or_default();
            Ok((priority, vector(&setting.guaranteed), vector(&setting.maximum)))
        };
        let settings = settings.iter().map(read).collect::<Result<Vec<_>, String>>()?;
        let change = |shares| {
            settings.into_iter().fold(shares, |shares: Shares, (priority, guaranteed, maximum)| {
                shares.with_guaranteed(priority, guaranteed).with_maximum(priority, maximum)
            })
        };
        self.leases.change_shares(change).map_err(|error| error.to_string())
    }
}

fn unreadable(reason: &str) {
    tracing::warn!(reason, "a control message cannot be read");
    counter!(CONTROLS, "kind" => "unreadable").increment(1);
}
