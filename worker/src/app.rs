//! How the worker is built, run and drained.
//!
//! # The order of a drain
//!
//! 1. No more offers: consumers close, and what is in hand goes back to its queues.
//! 2. What runs may end by itself, within the grace (none if hurried).
//! 3. What still runs is asked to leave a checkpoint and to end, and is killed if it does not in time; the ledger hears
//!    that it was drained and orders it again, uncounted.
//! 4. Events are published until they are confirmed, for a time that is bounded: the ledger declares lost what it does
//!    not hear of.
//! 5. The last load report says that the worker has left. Then the connection is closed.
//!
//! Load reports and control messages go on until the end, so that the ledger can still cancel what runs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use forecastle_admission::{DeskOptions, Shares};
use forecastle_broker::rabbitmq::RabbitMq;
use forecastle_broker::{Broker, layout};
use forecastle_protos::ids::WorkerId;
use forecastle_service::{Admin, Shutdown, process_metrics};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::adjustment::Adjuster;
use crate::claimer::{Claimer, ClaimerHandle, ClaimerOptions};
use crate::completion::Source;
use crate::control::{self, Control};
use crate::enforcement::{CpuMode, Mechanism};
use crate::events::EventPublisher;
use crate::execution::Executor;
use crate::leases::Leases;
use crate::options::WorkerOptions;
use crate::preparation::Preparation;
use crate::report::{Description, Reporter};
use crate::stop::StopReason;
use crate::{metric_definitions, node, queues, sweeper};

/// Unconfirmed messages of events.
const EVENTS_WINDOW: usize = 256;

/// Unconfirmed load reports.
const REPORTS_WINDOW: usize = 16;

/// How long handing back what is in hand may take; the broker takes it back by itself when the connection closes.
const HAND_BACK_WITHIN: Duration = Duration::from_secs(5);

/// How often readiness follows the connection.
const READINESS_EVERY: Duration = Duration::from_secs(1);

/// A task of its own that ends when told to.
struct Service {
    name: &'static str,
    /// `None` once it has ended by itself.
    task: Option<JoinHandle<anyhow::Result<()>>>,
    stop: CancellationToken,
}

impl Service {
    fn start<F>(name: &'static str, run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = Some(tokio::spawn(run(stop.clone())));
        Self { name, task, stop }
    }

    /// Tells it to stop and waits until it has.
    async fn end(mut self) {
        self.stop.cancel();
        if let Err(error) = self.ended().await {
            tracing::error!(error = format!("{error:#}"), "while draining");
        }
    }

    /// Waits until it has ended.
    async fn ended(&mut self) -> anyhow::Result<()> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let result = task.await;
        self.task = None;
        result.map_err(anyhow::Error::from).flatten().with_context(|| format!("the service {} failed", self.name))
    }
}

/// Everything that runs.
struct Services {
    claimer: Service,
    events: Service,
    control: Service,
    reporter: Service,
    admin: Service,
    /// Only if leases are adjusted.
    adjuster: Option<Service>,
    /// Only if shares may be reloaded.
    shares: Option<Service>,
    readiness: Service,
    metrics: Service,
    sweeper: Service,
}

/// Runs the worker until `shutdown` asks it to drain, over `broker` if there is one already.
pub(crate) async fn run(
    options: WorkerOptions,
    preparation: Preparation,
    worker: WorkerId,
    executor: Arc<dyn Executor>,
    broker: Option<Arc<dyn Broker>>,
    shares: Option<watch::Receiver<Shares>>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let (admin, readiness) = Admin::bind(&options.admin).await?;
    metric_definitions::describe();
    let admin_address = admin.local_addr();
    let gate = readiness.gate("broker");
    let broker = match broker {
        Some(broker) => broker,
        None => RabbitMq::connect(options.broker.clone()).await.context("connecting to RabbitMQ")?,
    };
    let topology = layout::shards([options.fleet.as_str()]).and(layout::control_listener(control::queue(worker)));
    broker.declare(&topology).await.context("declaring exchanges and queues")?;

    let description = describe(worker, &options, &preparation, &*executor);
    tracing::info!(
        name = description.name, worker = %worker, fleet = description.fleet, capacity = %description.capacity,
        units = description.units.len(), enforcement = description.enforcement, admin = %admin_address,
        "the worker is up"
    );
    let source = Source { worker, node_class: description.node_class.clone() };
    let (publisher, events) = EventPublisher::new(broker.publisher(EVENTS_WINDOW).await?);
    let claiming = ClaimerOptions {
        desk: DeskOptions {
            hold: options.claiming.hold.0,
            most_held: options.claiming.most_held,
            // Workers of a fleet differ in it, so that their pauses do.
            seed: worker.0.as_u64_pair().1,
            ..DeskOptions::default()
        },
        tag: format!("forecastle-worker {}", options.name),
        queues: queues::held_by(&options.fleet, &preparation.capacity, &options.claiming.reference_worker)
            .map(|(_, class, name)| (name, class))
            .collect(),
    };
    let leases = Leases::new(preparation.pool);
    let quota = options.enforcement.cpu == CpuMode::Quota && executor.enforcement() != Mechanism::Rusage.as_str();
    let adjuster = options.adjustment.policy().map(|policy| Adjuster::new(policy, leases.clone(), quota));
    let (claimer, handle) = Claimer::new(
        claiming,
        Arc::clone(&broker),
        leases.clone(),
        source,
        events,
        Arc::clone(&executor),
        adjuster.clone(),
    );
    let report = Arc::new(Notify::new());
    let reporter =
        Reporter::new(description, broker.publisher(REPORTS_WINDOW).await?, handle.snapshots(), Arc::clone(&report));
    let control = Control {
        worker,
        fleet: options.fleet.clone(),
        capacity: preparation.capacity.clone(),
        claimer: handle.clone(),
        leases: leases.clone(),
        executor: Arc::clone(&executor),
        report: Arc::clone(&report),
        shutdown: shutdown.clone(),
    };

    let mut services = Services {
        admin: Service::start("admin", |stop| async move { Ok(admin.run(stop).await?) }),
        metrics: Service::start("process-metrics", |stop| {
            unfailing(process_metrics::run(Duration::from_secs(10), stop))
        }),
        readiness: {
            let broker = Arc::clone(&broker);
            Service::start("readiness", |stop| {
                unfailing(async move {
                    while stop.run_until_cancelled(tokio::time::sleep(READINESS_EVERY)).await.is_some() {
                        gate.set(broker.is_connected());
                    }
                    gate.set(false);
                })
            })
        },
        sweeper: {
            let executor = Arc::clone(&executor);
            Service::start("sweeper", |stop| unfailing(sweeper::run(executor, stop)))
        },
        adjuster: adjuster.map(|adjuster| Service::start("adjuster", |stop| unfailing(adjuster.run(stop)))),
        events: Service::start("events", |stop| unfailing(publisher.run(stop))),
        control: {
            let broker = Arc::clone(&broker);
            Service::start("control", |stop| unfailing(control.run(broker, stop)))
        },
        shares: shares.map(|changes| {
            Service::start("shares", |stop| unfailing(follow_shares(changes, leases, Arc::clone(&report), stop)))
        }),
        reporter: Service::start("reporter", |stop| unfailing(reporter.run(stop))),
        claimer: Service::start("claimer", |stop| claimer.run(stop)),
    };
    readiness.gate("broker").set(true);

    let ended = tokio::select! {
        () = shutdown.draining() => Ok(()),
        result = services.first_end() => result,
    };
    let left = drain(services, handle, &options, shutdown).await;
    executor.close().await;
    broker.close().await;
    ended?;
    match left {
        0 => Ok(()),
        runs => Err(LeftUnconfirmed { runs }.into()),
    }
}

/// The worker has left, and the broker has not confirmed what became of some of its runs. The ledger will declare them
/// lost and order them again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{runs} runs did not end, or the broker did not confirm their end in time; the ledger will declare them lost")]
pub struct LeftUnconfirmed {
    /// How many.
    pub runs: usize,
}

/// Gives priorities the shares that are configured now.
async fn follow_shares(
    mut changes: watch::Receiver<Shares>,
    leases: Leases,
    report: Arc<Notify>,
    stop: CancellationToken,
) {
    // An error means that nobody reloads any more.
    while let Some(Ok(())) = stop.run_until_cancelled(changes.changed()).await {
        let shares = changes.borrow_and_update().clone();
        match leases.change_shares(|_| shares) {
            Ok(()) => tracing::info!("priorities have other shares, as configured now"),
            Err(error) => {
                tracing::error!(%error, "the shares that are configured now cannot be kept; they stay as they were");
            }
        }
        report.notify_one();
    }
    stop.cancelled().await;
}

async fn unfailing(service: impl Future<Output = ()>) -> anyhow::Result<()> {
    service.await;
    Ok(())
}

fn describe(
    worker: WorkerId,
    options: &WorkerOptions,
    preparation: &Preparation,
    executor: &dyn Executor,
) -> Description {
    let node_class = match options.claiming.node_class.as_str() {
        "" => node::node_class(),
        configured => configured.to_owned(),
    };
    Description {
        worker,
        name: options.name.clone(),
        fleet: options.fleet.clone(),
        capacity: preparation.capacity.clone(),
        units: executor.units(),
        catalogue_hash: preparation.catalogue.hash().to_owned(),
        node_class,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        enforcement: executor.enforcement().to_owned(),
        interval: options.report.interval.0,
    }
}

impl Services {
    /// Waits until a service ends, which none does by itself: an error, or a panic.
    async fn first_end(&mut self) -> anyhow::Result<()> {
        let Self { claimer, events, control, reporter, admin, readiness, metrics, sweeper, adjuster, shares } = self;
        let all = [claimer, events, control, reporter, admin, readiness, metrics, sweeper]
            .into_iter()
            .chain(adjuster)
            .chain(shares);
        let ends = all.map(|service| {
            Box::pin(async {
                service.ended().await?;
                anyhow::bail!("the service {} ended by itself", service.name)
            })
        });
        futures::future::select_all(ends).await.0
    }
}

/// Answers how many runs were left unconfirmed.
async fn drain(services: Services, mut handle: ClaimerHandle, options: &WorkerOptions, shutdown: &Shutdown) -> usize {
    tracing::info!(grace = %options.drain.grace, "draining");
    let Services { claimer, mut events, control, reporter, admin, readiness, metrics, sweeper, adjuster, shares } =
        services;
    readiness.end().await;
    sweeper.end().await;
    if let Some(shares) = shares {
        shares.end().await;
    }
    // 1. No more offers.
    if tokio::time::timeout(HAND_BACK_WITHIN, handle.stop_claiming()).await.is_err() {
        tracing::warn!("not all offers were handed back; the broker takes them back when the connection closes");
    }
    // 2. What runs may end by itself.
    tokio::select! {
        () = handle.idle() => {}
        () = tokio::time::sleep(options.drain.grace.0) => {}
        () = shutdown.hurrying() => {}
    }
    // 3. and 4. What still runs is stopped, and all is told.
    handle.stop_runs(StopReason::Drained).await;
    let mut left = 0;
    if tokio::time::timeout(options.runner.checkpoint_within.0 + options.drain.flush.0, handle.idle()).await.is_err() {
        left = handle.snapshots().borrow().runs.len();
        events.stop.cancel();
    }
    claimer.end().await;
    if let Some(adjuster) = adjuster {
        adjuster.end().await;
    }
    // The claimer held the last of the senders: it ends when all is confirmed, or was told not to wait.
    if let Err(error) = events.ended().await {
        tracing::error!(error = format!("{error:#}"), "while draining");
    }
    // 5. Goodbye.
    control.end().await;
    reporter.end().await;
    metrics.end().await;
    admin.end().await;
    tracing::info!("the worker has left");
    left
}
