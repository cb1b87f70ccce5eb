//! How the frontend is built, run and drained.
//!
//! # The order of a start
//!
//! Configuration and catalogue → the API's port and certificates → the ledger's lock → the broker → the claim of the virtual host → what the ledger has
//! unfinished → the services. Whatever the operator has to mend is found before anything is taken from a queue.
//!
//! # The order of a drain
//!
//! Ingress stops first, then whatever takes from queues, then what publishes; the ledger is closed last. Nothing here
//! needs to be finished for the sake of safety: what is not is read from the ledger by the next life.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use forecastle_broker::rabbitmq::RabbitMq;
use forecastle_broker::{Broker, Error as BrokerError, layout};
use forecastle_forecast::{DeclaredForecaster, Expert, FallbackForecaster, Forecaster, Learner, ProfileForecaster};
use forecastle_history::History;
use forecastle_service::{Admin, Gate, Shutdown, process_metrics};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::catalogue_store::CatalogueStore;
use crate::clock::now_ms;
use crate::completions::Completions;
use crate::control::Control;
use crate::dispatcher::Dispatcher;
use crate::effects::Effects;
use crate::failure_policy::CataloguePolicy;
use crate::fleet::Fleet;
use crate::forecasting::Sizing;
use crate::ingress::amqp::{AmqpIngress, BodyLimit};
use crate::ingress::http::{self, Api};
use crate::intake::Intake;
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{Error as LedgerError, Ledger};
use crate::options::{ForecastMode, FrontendOptions};
use crate::planner::Planner;
use crate::profiles::Profiles;
use crate::refusals::Refusals;
use crate::replies::Replies;
use crate::returned::Returned;
use crate::roots::AllowedRoots;
use crate::sink::{self, Sink};
use crate::sweeper::Sweeper;
use crate::tokens::Tokens;
use crate::{metric_definitions, tokens};

/// Unconfirmed messages of the publisher of shards.
const PUBLISH_WINDOW: usize = 512;

/// Unconfirmed messages of the publishers of replies and of control messages.
const SMALL_WINDOW: usize = 64;

/// How long a restarted frontend waits for the broker to notice that its former life is gone.
const OWNER_PATIENCE: Duration = Duration::from_secs(30);

/// Replies that are owed again and wait for their turn; the ingress waits when there are more.
const OWED_AGAIN: usize = 256;

/// How often retention looks for what may go.
const RETAIN_EVERY: Duration = Duration::from_mins(1);

/// What could be seen to be wrong before anything was connected.
pub fn check(options: &FrontendOptions) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    if let Err(errors) = CatalogueStore::load(&options.catalogue.path) {
        problems.push(format!("catalogue {}: {errors}", options.catalogue.path.display()));
    }
    if let Err(error) = options.broker.validate() {
        problems.push(format!("broker: {error}"));
    }
    if let Err(error) = AllowedRoots::new(&options.input.allowed_roots) {
        problems.push(format!("input.allowed_roots: {error}"));
    }
    if options.history.enabled
        && let Err(error) = options.history.resolved().validate()
    {
        problems.push(format!("history.server: {error}"));
    }
    if let Err(error) = http::Server::check(&options.http) {
        problems.push(format!("{error:#}"));
    }
    for (number, token) in options.http.tokens.iter().enumerate() {
        if token.tenant.is_empty() || token.token.expose().len() < tokens::SHORTEST {
            let shortest = tokens::SHORTEST;
            problems.push(format!("http.tokens[{number}]: needs a tenant and a token of {shortest} bytes or more"));
        }
        if options.http.tokens[..number].iter().any(|other| other.token == token.token) {
            problems.push(format!("http.tokens[{number}]: another entry has this token; each needs its own"));
        }
    }
    if options.sweeper.grace.0 < Duration::from_secs(1) {
        problems.push("sweeper.grace: less than a second would lose workers that live".to_owned());
    }
    anyhow::ensure!(problems.is_empty(), "the configuration is wrong:\n  {}", problems.join("\n  "));
    Ok(())
}

/// Another frontend is active on the virtual host.
#[derive(Debug, thiserror::Error)]
#[error(
    "another frontend is active on this virtual host (it holds the queue forecastle.owner): stop it, or give this one \
     a virtual host of its own"
)]
pub struct VirtualHostTaken(#[source] BrokerError);

/// True if the frontend did not start because another one has its ledger or its virtual host.
pub fn another_is_active(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(LedgerError::Owned { .. })) || error.is::<VirtualHostTaken>()
}

/// Runs the frontend until `shutdown` asks it to drain.
pub async fn run(options: FrontendOptions, shutdown: &Shutdown) -> anyhow::Result<()> {
    check(&options)?;
    let (admin, readiness) = Admin::bind(&options.admin).await?;
    metric_definitions::describe();
    let admin_address = admin.local_addr();
    // Bound now and answered at the end of the start: a taken port is found before the broker is bothered, and whoever
    // connects meanwhile waits.
    let server = http::Server::bind(&options.http).await?;
    let (ledger_gate, broker_gate) = (readiness.gate("ledger"), readiness.gate("broker"));

    let catalogue = Arc::new(CatalogueStore::load(&options.catalogue.path)?);
    let roots = AllowedRoots::new(&options.input.allowed_roots)?;
    let policy = Arc::new(CataloguePolicy::new(Arc::clone(&catalogue)));
    let sqlite = Arc::new(SqliteLedger::open(&options.data.directory, policy)?);
    let ledger: Arc<dyn Ledger> = Arc::clone(&sqlite) as _;
    ledger_gate.set(true);

    let broker = RabbitMq::connect(options.broker.clone()).await.context("connecting to RabbitMQ")?;
    let load_queue = format!("forecastle.load.frontend.{}", ledger.id());
    declare(&*broker, &*ledger, &catalogue, &load_queue).await?;
    broker_gate.set(true);

    // Two tokens: what takes work in stops before what sends work out.
    let (intake_stop, stop) = (CancellationToken::new(), CancellationToken::new());
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let mut takers: JoinSet<anyhow::Result<()>> = JoinSet::new();
    {
        let admin_stop = stop.clone();
        tasks.spawn(async move { Ok(admin.run(admin_stop).await?) });
    }
    {
        let process_stop = stop.clone();
        tasks.spawn(async move {
            process_metrics::run(Duration::from_secs(10), process_stop).await;
            Ok(())
        });
    }

    // Forecasting: learn what the ledger remembers before anything is sized.
    let recorded = Arc::new(Notify::new());
    let profile = Arc::new(ProfileForecaster::default());
    let mut profiles =
        Profiles::new(Arc::clone(&ledger), Arc::clone(&profile) as Arc<dyn Learner>, Arc::clone(&recorded));
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
    let (mut dispatcher, handle, outbox) = Dispatcher::new(
        Arc::clone(&ledger),
        Arc::clone(&catalogue),
        sizing.clone(),
        view.clone(),
        broker.publisher(PUBLISH_WINDOW).await?,
    );
    let (infeasible_sender, infeasible) = mpsc::unbounded_channel();
    dispatcher.give_up_after(options.sweeper.infeasible_after.0, infeasible_sender);
    dispatcher.restore(&work).await?;
    let replies_owed = work.replies_owed.clone();
    let (finished_sender, finished) = mpsc::unbounded_channel();
    let (progress, _) = broadcast::channel(1024);
    let effects = Effects {
        dispatcher: handle,
        control: control.clone(),
        finished: finished_sender,
        recorded: Arc::clone(&recorded),
        progress: progress.clone(),
    };
    let admitted = Arc::new(Notify::new());
    let intake =
        Arc::new(Intake::new(Arc::clone(&ledger), Arc::clone(&catalogue), roots.clone(), Arc::clone(&admitted)));

    // What sends work out.
    spawn(&mut tasks, outbox.run(stop.clone()));
    spawn(&mut tasks, dispatcher.run(work, stop.clone()));
    spawn(&mut tasks, profiles.run(stop.clone()));
    spawn(&mut tasks, Arc::clone(&catalogue).watch(stop.clone()));
    let (owed, owed_again) = mpsc::channel(OWED_AGAIN);
    let publisher = broker.publisher(SMALL_WINDOW).await?;
    let replies = Replies { ledger: Arc::clone(&ledger), publisher, finished, owed_again };
    spawn(&mut tasks, replies.run(replies_owed, stop.clone()));
    if options.history.enabled {
        let history = History::new(options.history.resolved())?;
        let sink = Sink { ledger: Arc::clone(&ledger), history, recorded: Arc::clone(&recorded) };
        spawn(&mut tasks, sink.run(stop.clone()));
    }
    let readers: &'static [&'static str] = if options.history.enabled { &[sink::READER] } else { &[] };
    spawn(&mut tasks, retain(Arc::clone(&ledger), options.data.retention.0, readers, stop.clone()));
    let sweeper = Sweeper {
        ledger: Arc::clone(&ledger),
        fleet: view.clone(),
        effects: effects.clone(),
        control: control.clone(),
        broker: Arc::clone(&broker),
        grace,
    };
    spawn(&mut tasks, sweeper.run(stop.clone()));

    let refusals = Refusals { ledger: Arc::clone(&ledger), effects: effects.clone(), infeasible };
    spawn(&mut tasks, refusals.run(stop.clone()));

    spawn(&mut tasks, watch_broker(Arc::clone(&broker), broker_gate, stop.clone()));

    // What takes work in.
    let planner = Planner {
        ledger: Arc::clone(&ledger),
        catalogue: Arc::clone(&catalogue),
        roots,
        admitted,
        effects: effects.clone(),
    };
    spawn(&mut takers, planner.run(intake_stop.clone()));
    takers.spawn(fleet.run(Arc::clone(&broker), intake_stop.clone()));
    let completions = Completions { ledger: Arc::clone(&ledger), effects: effects.clone() };
    takers.spawn(completions.run(Arc::clone(&broker), intake_stop.clone()));
    let returned = Returned { ledger: Arc::clone(&ledger), effects: effects.clone() };
    takers.spawn(returned.run(Arc::clone(&broker), intake_stop.clone()));
    if options.amqp.enabled {
        let ingress = AmqpIngress {
            intake: Arc::clone(&intake),
            publisher: broker.publisher(SMALL_WINDOW).await?,
            body_limit: BodyLimit(usize::try_from(options.amqp.max_body.0).unwrap_or(usize::MAX)),
            owed,
        };
        takers.spawn(ingress.run(Arc::clone(&broker), intake_stop.clone()));
    }
    let tokens = if options.http.tokens.is_empty() {
        let (tokens, path) = Tokens::generated(&options.data.directory).context("making an API token")?;
        tracing::info!(path = %path.display(), tenant = tokens::DEFAULT_TENANT, "no token is configured; one was made");
        tokens
    } else {
        Tokens::new(&options.http.tokens)
    };
    let api = Api { ledger: Arc::clone(&ledger), intake, catalogue, sizing, fleet: view, effects, progress, tokens };
    takers.spawn(server.run(api, intake_stop.clone()));
    // Whoever lives reports at once, so that a restarted frontend does not wait for their next report.
    control.report_now().await;
    tracing::info!(ledger = %ledger.id(), admin = %admin_address, "the frontend is up");

    let ended = tokio::select! {
        () = shutdown.draining() => Ok(()),
        result = first_end(&mut takers) => result,
        result = first_end(&mut tasks) => result,
    };
    tracing::info!("draining");
    intake_stop.cancel();
    join_all(takers, shutdown).await;
    stop.cancel();
    join_all(tasks, shutdown).await;
    broker.close().await;
    sqlite.close().await;
    ended
}

fn spawn(tasks: &mut JoinSet<anyhow::Result<()>>, service: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        service.await;
        Ok(())
    });
}

/// Waits until a service ends, which none does by itself: an error, or a panic.
async fn first_end(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    match tasks.join_next().await {
        Some(Ok(Ok(()))) => anyhow::bail!("a service ended by itself"),
        Some(Ok(Err(error))) => Err(error),
        Some(Err(error)) => Err(error.into()),
        None => std::future::pending().await,
    }
}

async fn join_all(mut tasks: JoinSet<anyhow::Result<()>>, shutdown: &Shutdown) {
    loop {
        let result = tokio::select! {
            result = tasks.join_next() => result,
            () = shutdown.hurrying() => return,
        };
        match result {
            None => return,
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => tracing::error!(error = format!("{error:#}"), "a service failed while draining"),
            Some(Err(error)) => tracing::error!(%error, "a service failed while draining"),
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

/// Shows in `/readyz` whether the broker can be reached, until told to stop.
async fn watch_broker(broker: Arc<dyn Broker>, gate: Gate, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await.is_some() {
        gate.set(broker.is_connected());
    }
}

/// Removes what ended long ago, until told to stop.
async fn retain(
    ledger: Arc<dyn Ledger>,
    retention: Duration,
    readers: &'static [&'static str],
    stop: CancellationToken,
) {
    const PAGE: u32 = 100;
    while stop.run_until_cancelled(tokio::time::sleep(RETAIN_EVERY)).await.is_some() {
        let before = now_ms().saturating_sub(u64::try_from(retention.as_millis()).unwrap_or(u64::MAX));
        loop {
            match ledger.prune(before, readers, PAGE).await {
                Ok(pruned) if pruned.requests == PAGE => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "retention waits for the ledger");
                    break;
                }
            }
        }
    }
}
