//! The fleet as load reports tell it: who lives, what each could hold and can run.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::{Broker, ConsumeOptions, ConsumerEvent};
use forecastle_protos::ids::{ParseIdError, WorkerId};
use forecastle_protos::v1;
use forecastle_resources::{Resource, ResourceVector};
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metric_definitions::WORKERS;

/// A worker, as of its last report.
#[derive(Debug, Clone)]
pub struct Worker {
    /// The report.
    pub report: v1::LoadReport,
    /// All it has.
    pub capacity: ResourceVector,
    /// When the report arrived.
    pub heard: Instant,
}

/// Every worker that was heard of within the grace.
#[derive(Debug, Clone, Default)]
pub struct FleetView {
    /// By the id of their life.
    pub workers: HashMap<WorkerId, Worker>,
}

/// Why no worker could run a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWorker {
    /// Nobody is there.
    #[error("fleet {fleet} has no live worker")]
    EmptyFleet {
        /// The fleet.
        fleet: String,
    },
    /// Nobody knows the unit.
    #[error("no live worker of fleet {fleet} has unit {unit} in its catalogue")]
    UnknownUnit {
        /// The fleet.
        fleet: String,
        /// The unit.
        unit: String,
    },
    /// It is too large for everybody.
    #[error("it reserves {wanted}, and no live worker of fleet {fleet} has so much {resource} in all")]
    TooLarge {
        /// The fleet.
        fleet: String,
        /// What it reserves.
        wanted: Box<ResourceVector>,
        /// The resource that is too small on the worker that comes nearest.
        resource: Resource,
    },
}

impl FleetView {
    /// Workers of a fleet that take new shards.
    pub fn claiming(&self, fleet: &str) -> impl Iterator<Item = &Worker> {
        self.workers.values().filter(move |w| w.report.fleet == fleet && !w.report.draining && !w.report.leaving)
    }

    /// Whether some live worker's total capacity and catalogue could run this.
    pub fn could_run(&self, fleet: &str, unit: &str, vector: &ResourceVector) -> Result<(), NoWorker> {
        let mut error = NoWorker::EmptyFleet { fleet: fleet.to_owned() };
        for worker in self.claiming(fleet) {
            if !worker.report.units.iter().any(|known| known == unit) {
                if matches!(error, NoWorker::EmptyFleet { .. }) {
                    error = NoWorker::UnknownUnit { fleet: fleet.to_owned(), unit: unit.to_owned() };
                }
            } else if let Some(resource) = vector.exceeds(&worker.capacity) {
                error = NoWorker::TooLarge { fleet: fleet.to_owned(), wanted: Box::new(vector.clone()), resource };
            } else {
                return Ok(());
            }
        }
        Err(error)
    }

    /// Takes note of a report that arrived at `now`; one that is older than what is known changes nothing. True if it
    /// changes what decides about releases, so that those who wait for the fleet to change should look again.
    pub fn hear(&mut self, report: v1::LoadReport, now: Instant) -> Result<bool, ParseIdError> {
        let id: WorkerId = report.worker_id.parse()?;
        let capacity = report.capacity.as_ref().map(Into::into).unwrap_or_default();
        let known = self.workers.get(&id);
        if known.is_some_and(|w| w.report.sequence >= report.sequence) {
            return Ok(false);
        }
        let changed = known.is_none_or(|w| {
            w.capacity != capacity
                || w.report.units != report.units
                || w.report.draining != report.draining
                || w.report.leaving != report.leaving
        });
        self.workers.insert(id, Worker { report, capacity, heard: now });
        Ok(changed)
    }

    /// The workers for people, by name.
    pub fn workers_status(&self) -> Vec<v1::WorkerStatus> {
        let mut workers: Vec<_> = self
            .workers
            .values()
            .map(|worker| v1::WorkerStatus {
                report: Some(worker.report.clone()),
                age_ms: u64::try_from(worker.heard.elapsed().as_millis()).unwrap_or(u64::MAX),
            })
            .collect();
        workers.sort_by(|a, b| {
            let name = |w: &v1::WorkerStatus| w.report.as_ref().map(|r| (r.worker_name.clone(), r.worker_id.clone()));
            name(a).cmp(&name(b))
        });
        workers
    }
}

/// The service that listens to load reports.
pub struct Fleet {
    queue: String,
    view: watch::Sender<Arc<FleetView>>,
    forget_after: Duration,
}

impl Fleet {
    /// A service on `queue`, and the view it keeps. Workers are forgotten `forget_after` their last report.
    pub fn new(queue: String, forget_after: Duration) -> (Self, watch::Receiver<Arc<FleetView>>) {
        let (view, watching) = watch::channel(Arc::default());
        (Self { queue, view, forget_after }, watching)
    }

    /// Listens until told to stop.
    pub async fn run(self, broker: Arc<dyn Broker>, stop: CancellationToken) -> anyhow::Result<()> {
        let options = ConsumeOptions { window: 256, exclusive: true, tag: "forecastle-frontend-load".to_owned() };
        let mut consumer = broker.consumer(&self.queue, options).await?;
        let mut forget = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = forget.tick() => self.forget(),
                event = consumer.next() => match event {
                    None => break,
                    Some(ConsumerEvent::Interrupted) => {}
                    Some(ConsumerEvent::Delivery(delivery)) => {
                        match v1::LoadReport::decode(&*delivery.message.body) {
                            Ok(report) => self.hear(report),
                            Err(error) => tracing::warn!(%error, "a load report cannot be read"),
                        }
                        // A report is a snapshot: nothing is lost with it, the next one replaces it.
                        delivery.ack().await;
                    }
                },
            }
        }
        consumer.close().await;
        Ok(())
    }

    fn hear(&self, report: v1::LoadReport) {
        let now = Instant::now();
        self.view.send_if_modified(|view| match Arc::make_mut(view).hear(report, now) {
            Ok(changed) => changed,
            Err(error) => {
                tracing::warn!(%error, "a load report names no worker");
                false
            }
        });
    }

    fn forget(&self) {
        self.view.send_if_modified(|view| {
            let old = |w: &Worker| w.heard.elapsed() > self.forget_after;
            if !view.workers.values().any(old) {
                return false;
            }
            Arc::make_mut(view).workers.retain(|_, w| !old(w));
            true
        });
        metrics::gauge!(WORKERS).set(self.view.borrow().workers.len() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_resources::{Bytes, CpuMillis};

    fn view(workers: &[(&str, &[&str], u64)]) -> FleetView {
        let workers = workers.iter().map(|(fleet, units, mib)| {
            let report = v1::LoadReport {
                fleet: (*fleet).to_owned(),
                units: units.iter().map(|&u| u.to_owned()).collect(),
                ..Default::default()
            };
            let capacity = ResourceVector::new(CpuMillis(1000), Bytes::mib(*mib));
            (WorkerId::new(), Worker { report, capacity, heard: Instant::now() })
        });
        FleetView { workers: workers.collect() }
    }

    #[test]
    fn a_shard_is_released_only_where_somebody_could_run_it_and_the_reason_is_told() {
        let wanted = ResourceVector::new(CpuMillis(500), Bytes::mib(512));
        assert!(matches!(view(&[]).could_run("a", "u", &wanted), Err(NoWorker::EmptyFleet { .. })));
        let other = view(&[("b", &["u"], 1024)]);
        assert!(matches!(other.could_run("a", "u", &wanted), Err(NoWorker::EmptyFleet { .. })));
        let ignorant = view(&[("a", &["v"], 1024)]);
        assert!(matches!(ignorant.could_run("a", "u", &wanted), Err(NoWorker::UnknownUnit { .. })));
        let small = view(&[("a", &["u"], 256), ("a", &["v"], 1024)]);
        let error = small.could_run("a", "u", &wanted).unwrap_err();
        assert!(matches!(&error, NoWorker::TooLarge { resource: Resource::Memory, .. }), "{error}");
        assert_eq!(view(&[("a", &["u"], 256), ("a", &["u"], 1024)]).could_run("a", "u", &wanted), Ok(()));
    }
}
