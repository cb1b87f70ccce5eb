//! A worker as a library: for programs with typed tasks of their own.

use std::fmt;
use std::sync::Arc;

use anyhow::Context as _;
use forecastle_admission::Shares;
use forecastle_broker::Broker;
use forecastle_protos::ids::WorkerId;
use forecastle_service::Shutdown;
use forecastle_task::{NameTaken, Registry, Task};
use tokio::sync::watch;

use crate::app;
use crate::enforcement::{self, capacity};
use crate::execution::Executor;
use crate::options::WorkerOptions;
use crate::preparation::Preparation;
use crate::runner::{AllowedRoots, LocalExecutor, Places, Runner, task_process};

/// A worker.
///
/// ```no_run
/// use forecastle_task::{Context, Task, TaskError, async_trait};
/// use forecastle_worker::{Worker, WorkerOptions};
///
/// struct Greet;
///
/// #[async_trait]
/// impl Task for Greet {
///     const NAME: &'static str = "example.greet";
///     type Parameters = serde_json::Value;
///     type Output = String;
///
///     async fn run(&self, _: serde_json::Value, context: &Context) -> Result<String, TaskError> {
///         Ok(format!("hello, {}", context.tenant()))
///     }
/// }
///
/// # async fn example() -> anyhow::Result<()> {
/// // Units of the catalogue with `task = "example.greet"` run here.
/// Worker::builder(WorkerOptions::default()).task(Greet).run().await
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Worker;

/// A worker that is about to run.
pub struct WorkerBuilder {
    options: WorkerOptions,
    tasks: Registry,
    taken: Vec<NameTaken>,
    broker: Option<Arc<dyn Broker>>,
    executor: Option<Arc<dyn Executor>>,
    shutdown: Option<Shutdown>,
    shares: Option<watch::Receiver<Shares>>,
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("options", &self.options)
            .field("tasks", &self.tasks)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker with these options and the tasks that come with Forecastle.
    pub fn builder(options: WorkerOptions) -> WorkerBuilder {
        let mut tasks = Registry::new();
        let taken = crate::tasks::register(&mut tasks).err().into_iter().collect();
        WorkerBuilder { options, tasks, taken, broker: None, executor: None, shutdown: None, shares: None }
    }
}

impl WorkerBuilder {
    /// Adds a task. [`Self::run`] fails if another has its name.
    #[must_use]
    pub fn task<T: Task>(mut self, task: T) -> Self {
        self.taken.extend(self.tasks.register(task).err());
        self
    }

    /// Over this broker instead of the one that the options name.
    #[must_use]
    pub fn broker(mut self, broker: Arc<dyn Broker>) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Runs shards with this instead of the runner that comes with Forecastle: for simulations and tests.
    #[must_use]
    pub fn executor(mut self, executor: Arc<dyn Executor>) -> Self {
        self.executor = Some(executor);
        self
    }

    /// Ends when this says so, instead of by SIGTERM and SIGINT.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = Some(shutdown);
        self
    }

    /// Gives priorities other shares whenever these change. Those that cannot be kept change nothing.
    #[must_use]
    pub fn shares(mut self, changes: watch::Receiver<Shares>) -> Self {
        self.shares = Some(changes);
        self
    }

    /// Names everything that is wrong with the options, without connecting to anything.
    pub fn check(self) -> anyhow::Result<()> {
        self.prepare().map(drop)
    }

    /// Runs until told to stop, and drains. Fails if it could not start, or had to stop by itself.
    ///
    /// A worker starts its own program again to run isolated tasks apart. There this serves one of them and ends the
    /// process, whatever the options are; [`task_process::is_asked`] tells a program beforehand.
    pub async fn run(self) -> anyhow::Result<()> {
        if task_process::is_asked() {
            return task_process::serve(&self.tasks).await.map(|never| match never {});
        }
        let preparation = self.prepare()?;
        let Self { options, tasks, broker, executor, shutdown, shares, .. } = self;
        // From here on signals drain, also while the start takes its time.
        let shutdown = match shutdown {
            Some(shutdown) => shutdown,
            None => Shutdown::on_signals()?,
        };
        let worker = WorkerId::new();
        let executor = match executor {
            Some(executor) => executor,
            None => local_executor(&options, &preparation, tasks, worker).await?,
        };
        app::run(options, preparation, worker, executor, broker, shares, &shutdown).await
    }

    fn prepare(&self) -> anyhow::Result<Preparation> {
        let taken: Vec<_> = self.taken.iter().map(ToString::to_string).collect();
        anyhow::ensure!(taken.is_empty(), "{}", taken.join("; "));
        let detected = capacity::detect().map_err(|error| error.to_string());
        let scratch = capacity::scratch_now(&self.options.scratch.root).map_err(|error| error.to_string());
        Ok(Preparation::new(&self.options, detected, scratch)?)
    }
}

/// The runner that comes with Forecastle, on this machine.
async fn local_executor(
    options: &WorkerOptions,
    preparation: &Preparation,
    tasks: Registry,
    worker: WorkerId,
) -> anyhow::Result<Arc<dyn Executor>> {
    let (options, catalogue) = (options.clone(), Arc::clone(&preparation.catalogue));
    // Sweeping what earlier lives left can take seconds.
    let prepared = tokio::task::spawn_blocking(move || {
        let detected = enforcement::detect(&options.enforcement, worker).context("preparing to enforce")?;
        if let Some(shortfall) = detected.shortfall {
            tracing::warn!(reason = shortfall, "no cgroups: runs are measured and not kept within what they hold");
        }
        let roots = AllowedRoots::new(&options.input.allowed_roots)?;
        let places = Places { roots, store: options.store.root, scratch: options.scratch.root };
        let (runner, preallocation) = (options.runner, options.preallocation);
        let runner = Runner::new(worker, detected.enforcer, places, tasks, runner, preallocation)?;
        anyhow::Ok(LocalExecutor::new(catalogue, runner))
    });
    Ok(Arc::new(prepared.await??))
}
