//! Workers: the whole worker but for its runner, life after life.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::MemoryBroker;
use forecastle_resources::{Bytes, CpuMillis, ReferenceWorker, ResourceVector};
use forecastle_service::Shutdown;
use forecastle_worker::{LeftUnconfirmed, Worker, WorkerOptions};
use tokio::task::JoinHandle;

use crate::fuse::Fuse;
use crate::labour::{Labour, Record};
use crate::link::Link;
use crate::weather::Weather;

/// What a worker has.
pub const CAPACITY: ResourceVector = ResourceVector::new(CpuMillis(4000), Bytes::gib(4));

/// Where workers live.
#[derive(Clone)]
pub struct Premises {
    /// The catalogue's file.
    pub catalogue: PathBuf,
    /// Of stores and scratch.
    pub folder: PathBuf,
    /// The broker.
    pub broker: MemoryBroker,
    /// What was done by anybody.
    pub record: Arc<Record>,
    /// The faults.
    pub weather: Arc<Weather>,
}

/// One life.
pub struct WorkerLife {
    /// Its link.
    pub link: Link,
    /// Its fuse.
    pub fuse: Arc<Fuse>,
    /// What it runs.
    pub labour: Arc<Labour>,
    /// Ends it in good order.
    pub shutdown: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
}

/// The options of a worker.
fn options(catalogue: &Path, folder: &Path) -> WorkerOptions {
    let mut options = WorkerOptions { name: "simulated".to_owned(), capacity: CAPACITY, ..WorkerOptions::default() };
    catalogue.clone_into(&mut options.catalogue.path);
    options.store.root = folder.join("store");
    options.scratch.root = folder.join("scratch");
    // Not what this machine's disk happens to have.
    options.capacity.scratch = Bytes::gib(100);
    options.claiming.reference_worker = ReferenceWorker(CAPACITY);
    options.drain.grace.0 = Duration::from_secs(3);
    options.drain.flush.0 = Duration::from_secs(10);
    options
}

impl WorkerLife {
    /// Begins one.
    pub fn begin(premises: &Premises) -> Self {
        let (fuse, shutdown) = (Arc::<Fuse>::default(), Shutdown::new());
        let link = Link::new(&premises.broker, Arc::clone(&fuse), Arc::clone(&premises.weather));
        let labour = Labour::new(Arc::clone(&premises.weather), link.clone(), Arc::clone(&premises.record));
        let labour = Arc::new(labour);
        let worker = Worker::builder(options(&premises.catalogue, &premises.folder))
            .broker(Arc::new(link.clone()))
            .executor(Arc::clone(&labour) as _)
            .shutdown(shutdown.clone());
        Self { link, fuse, labour, shutdown, task: tokio::spawn(worker.run()) }
    }

    /// Waits until it ends: by its fuse (`None`), or by itself. That some of its runs were left unconfirmed is no error:
    /// the ledger declares them lost.
    pub async fn ended(&mut self) -> Option<anyhow::Result<()>> {
        tokio::select! {
            () = self.fuse.blown() => None,
            result = &mut self.task => Some(match result.map_err(anyhow::Error::from).flatten() {
                Err(error) if error.is::<LeftUnconfirmed>() => Ok(()),
                other => other,
            }),
        }
    }

    /// Ends it where it is.
    pub fn kill(self) {
        self.link.kill();
        self.task.abort();
    }
}
