//! A command, once or once for each item, in one cage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forecastle_catalogue::{Command, Invoke, RenderError, Template};
use forecastle_protos::v1::{self, Outcome};
use forecastle_task::Item;
use tokio_util::sync::CancellationToken;

use crate::adjustment::{AllocationFile, Bounds, Follower};
use crate::enforcement::cage::{self, Cage};
use crate::enforcement::launcher::protocol::{ChildUsage, LaunchOrder, LaunchReport};
use crate::enforcement::{Enforcer, Limits, Mechanism};
use crate::runner::bounded_log::BoundedLog;
use crate::runner::checkpoint_file;
use crate::runner::environment::{Paths, environment};
use crate::runner::invocation::{Logs, Stdout, invoke};
use crate::runner::meter::{Meter, accumulate};
use crate::runner::options::RunnerOptions;
use crate::runner::output_store::{RunFolder, StoreError};
use crate::runner::run_spec::RunSpec;
use crate::runner::scratch::Scratch;
use crate::runner::scratch_meter::ScratchMeter;
use crate::runner::stop_cause::StopWatch;
use crate::runner::verdict::{Evidence, Verdict, judge};

/// How long it may take to take a cage apart.
const DISMANTLE_WITHIN: Duration = Duration::from_secs(10);

/// What a command has: its folders, its items, and the means to run it.
#[derive(Debug)]
pub(crate) struct CommandRun<'a> {
    pub(crate) spec: &'a RunSpec,
    pub(crate) command: &'a Command,
    pub(crate) items: &'a [Item],
    pub(crate) folder: &'a RunFolder,
    pub(crate) scratch: &'a Scratch,
    /// The file with the results of earlier stages.
    pub(crate) upstream: &'a Path,
    /// What an earlier attempt left.
    pub(crate) checkpoint: Option<&'a Path>,
    /// The file with what it may use.
    pub(crate) allocation: &'a AllocationFile,
    pub(crate) launcher: &'a Path,
    pub(crate) enforcer: &'a Arc<dyn Enforcer>,
    pub(crate) options: &'a RunnerOptions,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct CommandEnd {
    pub(crate) verdict: Verdict,
    pub(crate) usage: Option<v1::Usage>,
    pub(crate) log_tail: String,
}

impl CommandRun<'_> {
    /// Runs it to its end. Then none of its processes is left, nor its cage.
    pub(crate) async fn run(&self) -> CommandEnd {
        let started = Instant::now();
        let (enforcer, run, limits) = (Arc::clone(self.enforcer), self.spec.run, Limits::of(&self.spec.reservation));
        let cage: Arc<dyn Cage> = match tokio::task::spawn_blocking(move || enforcer.create(run, &limits)).await {
            Ok(Ok(cage)) => Arc::from(cage),
            Ok(Err(error)) => {
                let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
                return CommandEnd::before(format!("the limits of this run cannot be set: {error}{why}"));
            }
            Err(error) => return CommandEnd::before(format!("the limits of this run cannot be set: {error}")),
        };
        let out_of_memory = CancellationToken::new();
        let on_disk = ScratchMeter::start(self.scratch.work(), self.spec.reservation.scratch, self.spec.usage.clone());
        let (stop, limit) = (self.spec.stop.clone(), self.spec.limit);
        let watch = StopWatch::start(stop, limit, out_of_memory.clone(), on_disk.overuse());
        let meter =
            Meter::start(Arc::clone(&cage), self.spec.usage.clone(), out_of_memory, self.follower(Arc::clone(&cage)));
        let mut logs = self.logs();
        let mut children = ChildUsage::default();
        let verdict = self.invocations(&cage, &watch, &mut logs, &mut children).await;
        drop(on_disk);
        let mut log_tail = String::new();
        for log in [&mut logs.stdout, &mut logs.stderr].into_iter().flatten() {
            log.close().await;
            log_tail = log.tail();
        }
        let measured = meter.finish().await;
        if let Err(error) = cage::dismantle(&cage, DISMANTLE_WITHIN).await {
            tracing::error!(run = %self.spec.run, error = &error as &dyn std::error::Error, "a cage is left");
        }
        let usage = measured.usage(&children, started.elapsed(), self.enforcer.mechanism());
        CommandEnd { verdict, usage: Some(usage), log_tail }
    }

    fn follower(&self, cage: Arc<dyn Cage>) -> Option<Follower> {
        let limited = self.enforcer.mechanism() != Mechanism::Rusage;
        let bounds = Bounds::of(&self.spec.unit, self.spec.reservation.memory, limited);
        Follower::new(&self.spec.allocation, bounds, Some(cage), Some(self.allocation.clone()))
    }

    fn logs(&self) -> Logs {
        let log = |name| Some(BoundedLog::new(self.folder.beside(name), self.options.log_limit));
        Logs { stdout: log("stdout.log"), stderr: log("stderr.log") }
    }

    async fn invocations(
        &self,
        cage: &Arc<dyn Cage>,
        watch: &StopWatch,
        logs: &mut Logs,
        children: &mut ChildUsage,
    ) -> Verdict {
        let items: Vec<Option<&Item>> = match self.command.invoke {
            Invoke::Each => self.items.iter().map(Some).collect(),
            Invoke::Once => vec![None],
        };
        let mut last = Verdict::succeeded(0);
        for item in items {
            if let Some(cause) = watch.now() {
                return Verdict::stopped(&cause);
            }
            last = self.invocation(item, cage, watch, logs, children).await;
            if !last.is_success() {
                break;
            }
        }
        last
    }

    async fn invocation(
        &self,
        item: Option<&Item>,
        cage: &Arc<dyn Cage>,
        watch: &StopWatch,
        logs: &mut Logs,
        children: &mut ChildUsage,
    ) -> Verdict {
        let (order, stdout) = match self.prepare(item, cage) {
            Ok(prepared) => prepared,
            Err(failure) => return failure.verdict(),
        };
        let stdout = match self.open_stdout(stdout).await {
            Ok(stdout) => stdout,
            Err(failure) => return failure.verdict(),
        };
        let farewell = if self.keeps_checkpoints() { self.options.checkpoint_within.0 } else { Duration::ZERO };
        let conclusion = invoke(self.launcher, &order, stdout, logs, cage, watch, farewell).await;
        if let Ok(LaunchReport::Ended(ended)) = &conclusion.report {
            accumulate(children, &ended.usage);
            if ended.left_behind > 0 {
                tracing::info!(run = %self.spec.run, processes = ended.left_behind, "a command left processes behind; they were killed");
            }
        }
        let counted = Arc::clone(cage);
        let kills = tokio::task::spawn_blocking(move || counted.sample()).await;
        let out_of_memory = matches!(kills, Ok(Ok(Some(sample))) if sample.oom_kills > 0);
        let log_tail = logs.stderr.as_ref().map(BoundedLog::tail).unwrap_or_default();
        judge(&Evidence {
            command: self.command,
            program: order.argv.first().map_or("", String::as_str),
            item: item.map(|item| item.name.as_str()),
            report: conclusion.report.as_ref().map_err(String::as_str),
            out_of_memory,
            cause: conclusion.cause.as_ref(),
            log_tail: &log_tail,
        })
    }

    fn prepare(&self, item: Option<&Item>, cage: &Arc<dyn Cage>) -> Result<(LaunchOrder, Option<String>), Failure> {
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| Failure::Path(path.to_owned()));
        let mut values: BTreeMap<&str, String> =
            self.spec.parameters.iter().map(|(name, value)| (name.as_str(), value.to_string())).collect();
        values.insert("output", text(self.folder.output())?);
        values.insert("scratch", text(self.scratch.work())?);
        values.insert("upstream", text(self.upstream)?);
        if let Some(item) = item {
            values.insert("input", text(&item.path)?);
            values.insert("name", item.name.clone());
        }
        let stdout = self.command.stdout.as_ref().map(|stdout| stdout.render(&|name| values.get(name).cloned()));
        let stdout = stdout.transpose()?;
        // The same path, but never an option.
        if let Some(name) = values.get_mut("name").filter(|name| name.starts_with('-')) {
            name.insert_str(0, "./");
        }
        let inputs = self.items.iter().map(|item| text(&item.path)).collect::<Result<Vec<_>, _>>()?;
        let argv = self.command.arguments(&inputs, &|name| values.get(name).cloned())?;
        let mut environment = self.environment();
        if self.keeps_checkpoints() {
            environment.insert("FORECASTLE_CHECKPOINT_OUT".to_owned(), text(&checkpoint_file::part(self.folder))?);
            if let Some(left) = self.checkpoint {
                environment.insert("FORECASTLE_CHECKPOINT_FILE".to_owned(), text(left)?);
            }
        }
        let order = LaunchOrder {
            argv,
            environment,
            directory: self.scratch.work().to_owned(),
            joining: cage.joining().to_vec(),
        };
        if let Some(item) = item.filter(|item| item.name.contains('/')) {
            self.make_parents(item)?;
        }
        Ok((order, stdout))
    }

    /// One process for the whole shard: a checkpoint of one among several items would say nothing of the others.
    fn keeps_checkpoints(&self) -> bool {
        self.command.invoke == Invoke::Once
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let paths =
            Paths { output: self.folder.output(), scratch: self.scratch.work(), allocation: self.allocation.path() };
        environment(self.spec, self.command, &paths)
    }

    /// Makes the folders for `{output}/{name}` and `{scratch}/{name}`, where an argument holds these.
    fn make_parents(&self, item: &Item) -> Result<(), Failure> {
        let holds = |template: &Template, name| template.placeholders().any(|found| found == name);
        let both = |other| self.command.argv.iter().any(|argument| holds(argument, other) && holds(argument, "name"));
        if both("output") {
            self.folder.make_parents(&item.name)?;
        }
        if both("scratch") {
            let path = self.scratch.work().join(&item.name);
            let parent = path.parent().unwrap_or(self.scratch.work());
            std::fs::create_dir_all(parent).map_err(|source| StoreError::Io {
                action: "create",
                path: parent.to_owned(),
                source,
            })?;
        }
        Ok(())
    }

    async fn open_stdout(&self, name: Option<String>) -> Result<Stdout, Failure> {
        let Some(name) = name else { return Ok(Stdout::Log) };
        let folder = self.folder.clone();
        match tokio::task::spawn_blocking(move || folder.create_file(&name)).await {
            Ok(file) => Ok(Stdout::Result(file?)),
            Err(error) => Err(Failure::Worker(error.to_string())),
        }
    }
}

impl CommandEnd {
    fn before(error: String) -> Self {
        Self { verdict: Verdict::failed(Outcome::TaskError, error), usage: None, log_tail: String::new() }
    }
}

/// Why a process was not even tried.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the command cannot be put together: {0}")]
    Render(#[from] RenderError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the path {} is not UTF-8", .0.display())]
    Path(PathBuf),
    #[error("the worker failed: {0}")]
    Worker(String),
}

impl Failure {
    fn verdict(&self) -> Verdict {
        let passing = match self {
            Self::Render(_) | Self::Path(_) => false,
            Self::Store(error) => error.is_retryable(),
            Self::Worker(_) => true,
        };
        Verdict::failed(if passing { Outcome::TaskError } else { Outcome::PermanentError }, self.to_string())
    }
}
