//! The frontend: its own services, life after life on the same files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::{Broker, MemoryBroker};
use forecastle_frontend::catalogue_store::CatalogueStore;
use forecastle_frontend::clock;
use forecastle_frontend::effects::Effects;
use forecastle_frontend::failure_policy::CataloguePolicy;
use forecastle_frontend::fleet::FleetView;
use forecastle_frontend::intake::Intake;
use forecastle_frontend::ledger::Ledger;
use forecastle_frontend::options::FrontendOptions;
use forecastle_frontend::services::Services;
use forecastle_frontend::sink::Sink;
use forecastle_protos::ids::RequestId;
use forecastle_resources::ReferenceWorker;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::disk::Disk;
use crate::fuse::Fuse;
use crate::link::Link;
use crate::warehouse::Tables;
use crate::weather::Weather;

/// How long after its last load report a worker is lost.
pub const GRACE: Duration = Duration::from_secs(5);

/// What stays when a frontend goes.
#[derive(Clone)]
pub struct Premises {
    /// The ledger's.
    pub folder: PathBuf,
    /// The catalogue's file.
    pub catalogue: Arc<CatalogueStore>,
    /// Where inputs are.
    pub input: PathBuf,
    /// The machine that size classes are measured against.
    pub reference_worker: ReferenceWorker,
    /// The broker.
    pub broker: MemoryBroker,
    /// In ClickHouse's place.
    pub tables: Arc<Tables>,
    /// The faults.
    pub weather: Arc<Weather>,
    /// How long after its last load report a worker is lost.
    pub grace: Duration,
}

/// What an HTTP API would serve from.
#[derive(Clone)]
pub struct Counter {
    /// Takes submissions.
    pub intake: Arc<Intake>,
    /// Who lives.
    pub fleet: watch::Receiver<Arc<FleetView>>,
    ledger: Arc<dyn Ledger>,
    effects: Effects,
}

impl Counter {
    /// Cancels a request, as the API does.
    pub async fn cancel(&self, request: RequestId) -> anyhow::Result<()> {
        let changes = self.ledger.cancel(request, clock::now_ms()).await?;
        self.effects.spread(changes).await;
        Ok(())
    }
}

/// One life.
pub struct FrontendLife {
    /// Its link.
    pub link: Link,
    /// Its fuse.
    pub fuse: Arc<Fuse>,
    disk: Arc<Disk>,
    door: watch::Sender<Option<Counter>>,
    task: JoinHandle<anyhow::Error>,
}

impl FrontendLife {
    /// Begins one; who wants something finds its counter behind `door`.
    pub fn begin(premises: &Premises, door: &watch::Sender<Option<Counter>>) -> anyhow::Result<Self> {
        let fuse = Arc::<Fuse>::default();
        let link = Link::new(&premises.broker, Arc::clone(&fuse), Arc::clone(&premises.weather));
        let policy = Arc::new(CataloguePolicy::new(Arc::clone(&premises.catalogue)));
        let weather = Arc::clone(&premises.weather);
        let disk = Arc::new(Disk::open(&premises.folder, policy, link.clone(), Arc::clone(&fuse), weather)?);
        let door = door.clone();
        let (ledger, broker) = (Arc::clone(&disk) as Arc<dyn Ledger>, Arc::new(link.clone()) as Arc<dyn Broker>);
        let task = tokio::spawn(live(premises.clone(), ledger, broker, door.clone()));
        Ok(Self { link, fuse, disk, door, task })
    }

    /// The ledger of this life.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Waits until it ends: by its fuse (`None`), or by itself, which is for a supervisor to mend.
    pub async fn ended(&mut self) -> Option<anyhow::Error> {
        tokio::select! {
            () = self.fuse.blown() => None,
            result = &mut self.task => Some(result.unwrap_or_else(anyhow::Error::from)),
        }
    }

    /// Ends it where it is.
    pub fn kill(self) {
        self.link.kill();
        self.door.send_replace(None);
        self.task.abort();
        self.disk.release();
    }
}

async fn live(
    premises: Premises,
    ledger: Arc<dyn Ledger>,
    broker: Arc<dyn Broker>,
    door: watch::Sender<Option<Counter>>,
) -> anyhow::Error {
    let mut options = FrontendOptions::default();
    options.sweeper.grace.0 = premises.grace;
    options.input.allowed_roots = vec![premises.input];
    options.forecast.reference_worker = premises.reference_worker;
    let mut services = match Services::start(&options, &premises.catalogue, &ledger, &broker).await {
        Ok(services) => services,
        Err(error) => return error,
    };
    let recorded = Arc::clone(&services.effects.recorded);
    let sink = Sink { ledger: Arc::clone(&ledger), warehouse: premises.tables, recorded };
    services.spawn(|stop| async move {
        sink.run(stop).await;
        Ok(())
    });
    door.send_replace(Some(Counter {
        intake: Arc::clone(&services.intake),
        fleet: services.fleet.clone(),
        ledger,
        effects: services.effects.clone(),
    }));
    match services.first_end().await {
        Ok(()) => anyhow::anyhow!("the services ended"),
        Err(error) => error,
    }
}
