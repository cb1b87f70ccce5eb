//! How the frontend is built, run and drained.
//!
//! # The order of a start
//!
//! Configuration and catalogue → the API's port and certificates → the ledger's lock → the broker → the claim of the
//! virtual host → what the ledger has unfinished → the services → the API. Whatever the operator has to mend is found before anything is taken from a queue.
//!
//! # The order of a drain
//!
//! Ingress stops first, then whatever takes from queues, then what publishes; the ledger is closed last. Nothing here
//! needs to be finished for the sake of safety: what is not is read from the ledger by the next life.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use forecastle_broker::Broker;
use forecastle_broker::rabbitmq::RabbitMq;
use forecastle_history::History;
use forecastle_service::{Admin, Gate, Shutdown, process_metrics};
use tokio_util::sync::CancellationToken;

use crate::catalogue_store::CatalogueStore;
use crate::clock::now_ms;
use crate::failure_policy::CataloguePolicy;
use crate::ingress::http::{self, Api};
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{Error as LedgerError, Ledger, Readers};
use crate::options::FrontendOptions;
use crate::roots::AllowedRoots;
use crate::services::{Services, VirtualHostTaken};
use crate::sink::{self, Sink};
use crate::tokens::Tokens;
use crate::{metric_definitions, sweeper, tokens};

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
    problems.extend(options.forecast.problems());
    anyhow::ensure!(problems.is_empty(), "the configuration is wrong:\n  {}", problems.join("\n  "));
    Ok(())
}

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
    let policy = Arc::new(CataloguePolicy::new(Arc::clone(&catalogue)));
    let sqlite = Arc::new(SqliteLedger::open(&options.data.directory, policy)?);
    let ledger: Arc<dyn Ledger> = Arc::clone(&sqlite) as _;
    ledger_gate.set(true);

    let broker: Arc<dyn Broker> = RabbitMq::connect(options.broker.clone()).await.context("connecting to RabbitMQ")?;
    let mut services = Services::start(&options, &catalogue, &ledger, &broker).await?;
    broker_gate.set(true);

    services.spawn(|stop| async move { Ok(admin.run(stop).await?) });
    services.spawn(|stop| unfailing(process_metrics::run(Duration::from_secs(10), stop)));
    services.spawn(|stop| unfailing(Arc::clone(&catalogue).watch(stop)));
    services.spawn(|stop| unfailing(watch_broker(Arc::clone(&broker), broker_gate, stop)));
    let mut readers = Readers { events: &[sweeper::READER], decisions: &[] };
    if options.history.enabled {
        readers = Readers { events: &[sweeper::READER, sink::EVENTS_READER], decisions: &[sink::DECISIONS_READER] };
        let warehouse = Arc::new(History::new(options.history.resolved())?);
        let recorded = Arc::clone(&services.effects.recorded);
        let sink = Sink { ledger: Arc::clone(&ledger), warehouse, recorded };
        services.spawn(|stop| unfailing(sink.run(stop)));
    }
    services.spawn(|stop| unfailing(retain(Arc::clone(&ledger), options.data.retention.0, readers, stop)));

    let tokens = if options.http.tokens.is_empty() {
        let (tokens, path) = Tokens::generated(&options.data.directory).context("making an API token")?;
        tracing::info!(path = %path.display(), tenant = tokens::DEFAULT_TENANT, "no token is configured; one was made");
        tokens
    } else {
        Tokens::new(&options.http.tokens)
    };
    let api = Api {
        ledger: Arc::clone(&ledger),
        intake: Arc::clone(&services.intake),
        catalogue,
        sizing: services.sizing.clone(),
        fleet: services.fleet.clone(),
        effects: services.effects.clone(),
        progress: services.effects.progress.clone(),
        tokens,
    };
    services.spawn_taker(|stop| server.run(api, stop));
    tracing::info!(ledger = %ledger.id(), admin = %admin_address, "the frontend is up");

    let ended = tokio::select! {
        () = shutdown.draining() => Ok(()),
        result = services.first_end() => result,
    };
    tracing::info!("draining");
    services.drain(shutdown).await;
    broker.close().await;
    sqlite.close().await;
    ended
}

async fn unfailing(service: impl Future<Output = ()>) -> anyhow::Result<()> {
    service.await;
    Ok(())
}

/// Shows in `/readyz` whether the broker can be reached, until told to stop.
async fn watch_broker(broker: Arc<dyn Broker>, gate: Gate, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await.is_some() {
        gate.set(broker.is_connected());
    }
}

/// Removes what ended long ago, until told to stop.
async fn retain(ledger: Arc<dyn Ledger>, retention: Duration, readers: Readers, stop: CancellationToken) {
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
