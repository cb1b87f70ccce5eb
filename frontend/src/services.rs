//! The services between a ledger and a broker: all that makes requests into work and completions into results.
//!
//! What belongs to the process (HTTP, history, files, metrics) is the app's. Simulations run these very services over a
//! broker in memory.
//!
//! Two groups, because of the order of a drain: those that take work in stop before those that send work out.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use forecastle_broker::{Broker, Error as BrokerError, layout};
use forecastle_forecast::experts::ExpertOptions;
use forecastle_forecast::{
    DeclaredForecaster, Expert, FallbackForecaster, Forecaster, ProfileForecaster, ProfileOptions,
};
use forecastle_service::Shutdown;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::catalogue_store::CatalogueStore;
use crate::completions::Completions;
use crate::control::Control;
use crate::demand::Demand;
use crate::dispatcher::Dispatcher;
use crate::effects::Effects;
use crate::fleet::{Fleet, FleetView};
use crate::forecasting::Sizing;
use crate::ingress::amqp::{AmqpIngress, BodyLimit};
use crate::intake::Intake;
use crate::ledger::Ledger;
use crate::options::{ForecastMode, FrontendOptions};
use crate::planner::Planner;
use crate::profiles::Profiles;
use crate::refusals::Refusals;
use crate::replies::Replies;
use crate::returned::Returned;
use crate::roots::AllowedRoots;
use crate::sweeper::Sweeper;

/// Unconfirmed messages of the publisher of shards.
const PUBLISH_WINDOW: usize = 512;

/// Unconfirmed messages of the publishers of replies and of control messages.
const SMALL_WINDOW: usize = 64;

/// How long a restarted frontend waits for the broker to notice that its former life is gone.
const OWNER_PATIENCE: Duration = Duration::from_secs(30);

/// Replies that are owed again and wait for their turn; the ingress waits when there are more.
const OWED_AGAIN: usize = 256;

/// Another frontend is active on the virtual host.
#[derive(Debug, thiserror::Error)]
#[error(
    "another frontend is active on this virtual host (it holds the queue forecastle.owner): stop it, or give this one \
     a virtual host of its own"
)]
pub struct VirtualHostTaken(#[source] BrokerError);

/// The services, running, and what others need of them. Dropping it ends them all where they are.
pub struct Services {
    /// Takes submissions.
    pub intake: Arc<Intake>,
    /// What shards are sized with.
    pub sizing: Sizing,
    /// Who lives.
    pub fleet: watch::Receiver<Arc<FleetView>>,
    /// Who hears of changes.
    pub effects: Effects,
    takers: Group,
    senders: Group,
}

impl Services {
    /// Claims the virtual host, declares what is used on it, and starts everything from what the ledger has unfinished.
    pub async fn start(
        options: &FrontendOptions,
        catalogue: &Arc<CatalogueStore>,
        ledger: &Arc<dyn Ledger>,
        broker: &Arc<dyn Broker>,
    ) -> anyhow::Result<Self> {
        let roots = AllowedRoots::new(&options.input.allowed_roots)?;
        let load_queue = format!("forecastle.load.frontend.{}", ledger.id());
        declare(&**broker, &**ledger, catalogue, &load_queue).await?;

        // Forecasting: learn what the ledger remembers before anything is sized.
        let recorded = Arc::new(Notify::new());
        let profiles = ProfileOptions {
            experts: ExpertOptions { objective: options.forecast.kill_objective, ..ExpertOptions::default() },
            objectives: options.forecast.kill_objectives.clone(),
            ..ProfileOptions::default()
        };
        let profile = Arc::new(ProfileForecaster::new(profiles, DeclaredForecaster::default()));
        let mut profiles =
            Profiles::new(Arc::clone(ledger), Arc::clone(catalogue), Arc::clone(&profile), Arc::clone(&recorded));
        let learnt = profiles.catch_up().await?;
        tracing::info!(runs = learnt, "learnt from the ledger");
        let forecaster: Arc<dyn Forecaster> = match options.forecast.mode {
            ForecastMode::Learned => {
                Arc::new(FallbackForecaster::new(vec![profile as Arc<dyn Expert>], DeclaredForecaster::default()))
            }
            ForecastMode::DeclaredOnly => Arc::new(DeclaredForecaster::default()),
        };
        let sizing = Sizing::new(forecaster, options.forecast.reference_worker.clone());

        let grace = options.sweeper.grace.0;
        let (fleet, view) = Fleet::new(load_queue, grace * 2);
        let control = Control::new(broker.publisher(SMALL_WINDOW).await?);
        let work = ledger.open_work().await?;
        let demand = Demand::default();
        let (mut dispatcher, handle, outbox) = Dispatcher::new(
            Arc::clone(ledger),
            Arc::clone(catalogue),
            sizing.clone(),
            view.clone(),
            demand.clone(),
            broker.publisher(PUBLISH_WINDOW).await?,
        );
        let (infeasible_sender, infeasible) = mpsc::unbounded_channel();
        dispatcher.give_up_after(options.sweeper.infeasible_after.0, infeasible_sender);
        dispatcher.restore(&work).await?;
        let replies_owed = work.replies_owed.clone();
        let (finished_sender, finished) = mpsc::unbounded_channel();
        let (progress, _) = broadcast::channel(1024);
        let effects =
            Effects { dispatcher: handle, control: control.clone(), finished: finished_sender, recorded, progress };
        let admitted = Arc::new(Notify::new());
        let intake = Intake::new(Arc::clone(ledger), Arc::clone(catalogue), roots.clone(), Arc::clone(&admitted));
        let intake = Arc::new(intake);
        let (owed, owed_again) = mpsc::channel(OWED_AGAIN);

        let mut senders = Group::default();
        senders.spawn(|stop| outbox.run(stop));
        senders.spawn(|stop| dispatcher.run(work, stop));
        senders.spawn(|stop| profiles.run(stop));
        let publisher = broker.publisher(SMALL_WINDOW).await?;
        let replies = Replies { ledger: Arc::clone(ledger), publisher, finished, owed_again };
        senders.spawn(|stop| replies.run(replies_owed, stop));
        let sweeper = Sweeper {
            ledger: Arc::clone(ledger),
            fleet: view.clone(),
            effects: effects.clone(),
            control: control.clone(),
            broker: Arc::clone(broker),
            grace,
        };
        senders.spawn(|stop| sweeper.run(stop));
        let (fleets, telling) = (view.clone(), control.clone());
        senders.spawn(|stop| demand.run(fleets, telling, stop));
        let refusals = Refusals { ledger: Arc::clone(ledger), effects: effects.clone(), infeasible };
        senders.spawn(|stop| refusals.run(stop));

        let mut takers = Group::default();
        let planner = Planner {
            ledger: Arc::clone(ledger),
            catalogue: Arc::clone(catalogue),
            roots,
            admitted,
            effects: effects.clone(),
        };
        takers.spawn(|stop| planner.run(stop));
        takers.spawn_fallible(|stop| fleet.run(Arc::clone(broker), stop));
        let completions = Completions { ledger: Arc::clone(ledger), effects: effects.clone() };
        takers.spawn_fallible(|stop| completions.run(Arc::clone(broker), stop));
        let returned = Returned { ledger: Arc::clone(ledger), effects: effects.clone() };
        takers.spawn_fallible(|stop| returned.run(Arc::clone(broker), stop));
        if options.amqp.enabled {
            let ingress = AmqpIngress {
                intake: Arc::clone(&intake),
                publisher: broker.publisher(SMALL_WINDOW).await?,
                body_limit: BodyLimit(usize::try_from(options.amqp.max_body.0).unwrap_or(usize::MAX)),
                owed,
            };
            takers.spawn_fallible(|stop| ingress.run(Arc::clone(broker), stop));
        }
        // Whoever lives reports at once, so that a restarted frontend does not wait for their next report.
        control.report_now().await;
        Ok(Self { intake, sizing, fleet: view, effects, takers, senders })
    }

    /// Adds a service that takes work in.
    pub fn spawn_taker<F>(&mut self, service: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.takers.spawn_fallible(service);
    }

    /// Adds a service that goes on until no more work is taken in.
    pub fn spawn<F>(&mut self, service: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.senders.spawn_fallible(service);
    }

    /// Waits until a service ends, which none does by itself: an error, or a panic.
    pub async fn first_end(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            result = self.takers.first_end() => result,
            result = self.senders.first_end() => result,
        }
    }

    /// Stops what takes work in, then what sends work out.
    pub async fn drain(self, shutdown: &Shutdown) {
        self.takers.drain(shutdown).await;
        self.senders.drain(shutdown).await;
    }
}

/// Services that stop together.
#[derive(Default)]
struct Group {
    tasks: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Group {
    fn spawn<F>(&mut self, service: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let service = service(self.stop.clone());
        self.tasks.spawn(async move {
            service.await;
            Ok(())
        });
    }

    fn spawn_fallible<F>(&mut self, service: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.tasks.spawn(service(self.stop.clone()));
    }

    async fn first_end(&mut self) -> anyhow::Result<()> {
        match self.tasks.join_next().await {
            Some(Ok(Ok(()))) => anyhow::bail!("a service ended by itself"),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(error.into()),
            None => std::future::pending().await,
        }
    }

    async fn drain(mut self, shutdown: &Shutdown) {
        self.stop.cancel();
        loop {
            let result = tokio::select! {
                result = self.tasks.join_next() => result,
                () = shutdown.hurrying() => return,
            };
            match result {
                None => return,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => {
                    tracing::error!(error = format!("{error:#}"), "a service failed while draining");
                }
                Some(Err(error)) => tracing::error!(%error, "a service failed while draining"),
            }
        }
    }
}

/// Claims the virtual host and declares everything that this frontend uses.
async fn declare(
    broker: &dyn Broker,
    ledger: &dyn Ledger,
    catalogue: &CatalogueStore,
    load_queue: &str,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + OWNER_PATIENCE;
    // After a crash the broker may still hold the former life's connection for a moment.
    while let Err(error) = broker.declare(&layout::owner()).await {
        if !matches!(error, BrokerError::Refused { .. }) {
            return Err(anyhow::Error::from(error).context("claiming the virtual host"));
        }
        if tokio::time::Instant::now() > deadline {
            return Err(VirtualHostTaken(error).into());
        }
        tracing::warn!("another frontend holds this virtual host; waiting for it to go");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let catalogue = catalogue.current();
    let fleets: std::collections::BTreeSet<&str> = catalogue.types().values().map(|t| t.fleet.as_str()).collect();
    let topology = layout::requests()
        .and(layout::shards(fleets))
        .and(layout::completions(ledger.id()))
        .and(layout::load_listener(load_queue));
    broker.declare(&topology).await.context("declaring exchanges and queues")?;
    Ok(())
}
