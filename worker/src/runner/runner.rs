//! The runner: from what a run is given to how it ended.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forecastle_catalogue::{Command, TypedTask, Unit, Work};
use forecastle_protos::ids::{RunId, ShardId, WorkerId};
use forecastle_protos::v1::{self, Outcome};
use forecastle_resources::Bytes;
use forecastle_task::{Checkpoint, ContextParts, Item, Registry, UpstreamResult};
use serde_json::{Map, Value};

use crate::adjustment::AllocationFile;
use crate::enforcement::{EnforcementError, Enforcer, Limits};
use crate::execution::{Ending, Expected};
use crate::runner::allowed_roots::{AllowedRoots, InputError};
use crate::runner::checkpoint_file;
use crate::runner::command_run::CommandRun;
use crate::runner::enclosure::{CagedEnd, Surroundings};
use crate::runner::isolated_task_run::IsolatedTaskRun;
use crate::runner::options::RunnerOptions;
use crate::runner::output_store::{OutputStore, RunFolder, StoreError};
use crate::runner::relative_name::{self, NotRelative};
use crate::runner::run_spec::RunSpec;
use crate::runner::scratch::{Scratch, ScratchRoot};
use crate::runner::starting::{ExpectedUnit, Kind, PreallocationOptions, Starter, WarmSlots};
use crate::runner::task_run;
use crate::runner::upstream::{self, UpstreamError};
use crate::runner::verdict::Verdict;

/// The name of the launcher's program.
const LAUNCHER: &str = "forecastle-launch";

/// Why there is no runner.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The launcher is not there.
    #[error("the program {} is not there: install it beside the worker, or say where it is", .0.display())]
    NoLauncher(PathBuf),
    /// It is not known where this program is.
    #[error("cannot find this program's own folder: {0}")]
    OwnProgram(#[source] std::io::Error),
    /// The scratch folder cannot be used.
    #[error(transparent)]
    Scratch(#[from] EnforcementError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Runs shards. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runner {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    enforcer: Arc<dyn Enforcer>,
    roots: AllowedRoots,
    store: OutputStore,
    scratch: ScratchRoot,
    tasks: Registry,
    slots: WarmSlots,
    launcher: PathBuf,
    options: RunnerOptions,
}

/// Where a runner runs things.
#[derive(Debug, Clone)]
pub struct Places {
    /// Where inputs may be.
    pub roots: AllowedRoots,
    /// The folder of the store.
    pub store: PathBuf,
    /// The folder for scratch.
    pub scratch: PathBuf,
}

impl Runner {
    /// A runner with these means. Makes the store's and the scratch folder, and removes what dead workers left in the
    /// latter. Blocks.
    pub fn new(
        worker: WorkerId,
        enforcer: Arc<dyn Enforcer>,
        places: Places,
        tasks: Registry,
        options: RunnerOptions,
        preallocation: PreallocationOptions,
    ) -> Result<Self, RunnerError> {
        let launcher = match &options.launcher {
            Some(launcher) => launcher.clone(),
            None => std::env::current_exe().map_err(RunnerError::OwnProgram)?.with_file_name(LAUNCHER),
        };
        if !launcher.is_file() {
            return Err(RunnerError::NoLauncher(launcher));
        }
        // Of this process, so that it is the same program even if its file is replaced.
        let own_program = || PathBuf::from(format!("/proc/{}/exe", std::process::id()));
        let task_program = options.task_program.clone().unwrap_or_else(own_program);
        let Places { roots, store, scratch } = places;
        let (store, scratch) = (OutputStore::open(&store)?, ScratchRoot::open(&scratch, worker)?);
        let starter = Starter { enforcer: Arc::clone(&enforcer), launcher: launcher.clone(), task_program };
        let slots = WarmSlots::new(starter, preallocation.most);
        Ok(Self { shared: Arc::new(Shared { enforcer, roots, store, scratch, tasks, slots, launcher, options }) })
    }

    /// Makes ready what is expected to start here, for so long; `units` are those that are known.
    pub(crate) fn expect<'a>(
        &self,
        expected: &[Expected],
        for_so_long: Duration,
        unit: impl Fn(&str) -> Option<&'a Unit>,
    ) {
        let known = expected.iter().filter_map(|expected| {
            let unit = unit(&expected.unit)?;
            let kind = Kind::of(unit, &expected.reservation)?;
            let limits = Limits::of(&expected.reservation);
            Some(ExpectedUnit { unit: unit.name.clone(), kind, limits, expectation: expected.expectation })
        });
        self.shared.slots.expect(known.collect(), for_so_long);
    }

    /// How many runs could start at once without anything being made for them.
    pub fn ready(&self) -> usize {
        self.shared.slots.ready()
    }

    /// Ends what waits for work.
    pub async fn close(&self) {
        self.shared.slots.close().await;
    }

    /// How it keeps runs within what they hold.
    pub fn enforcer(&self) -> &dyn Enforcer {
        &*self.shared.enforcer
    }

    /// The tasks that it knows.
    pub fn tasks(&self) -> &Registry {
        &self.shared.tasks
    }

    /// Removes what dead workers left on this machine; answers how many folders of theirs are gone. Blocks.
    pub fn sweep(&self) -> usize {
        self.shared.enforcer.sweep() + self.shared.scratch.sweep()
    }

    /// Removes what runs of a shard left in the store, but for the one that won; answers of how many. Blocks.
    pub fn discard_outputs(&self, shard: ShardId, winner: RunId) -> usize {
        self.shared.store.discard_others(shard, winner).unwrap_or_else(|error| {
            tracing::warn!(%shard, %error, "outputs of runs that did not win stay");
            0
        })
    }

    /// Removes what a run left in the store; true if there was something. Blocks.
    pub fn discard_output(&self, shard: ShardId, run: RunId) -> bool {
        self.shared.store.discard_run(shard, run).unwrap_or_else(|error| {
            tracing::warn!(%shard, %run, %error, "the output of a run that was given up stays");
            false
        })
    }

    /// Runs. When it answers, nothing of the run is left but its output and what it said.
    pub async fn run(&self, spec: RunSpec) -> Ending {
        let (shared, spec) = (Arc::clone(&self.shared), Arc::new(spec));
        spec.allocation.start(&spec.reservation);
        let (preparing, preparing_spec) = (Arc::clone(&shared), Arc::clone(&spec));
        let prepared = tokio::task::spawn_blocking(move || preparing.prepare(&preparing_spec)).await;
        let prepared = match prepared {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(error)) => return Ending::failed(error.outcome(), error.to_string()),
            Err(error) => return Ending::failed(Outcome::TaskError, format!("preparing the run failed: {error}")),
        };
        let mut ending = match &spec.unit.work {
            Work::Command(command) => self.run_command(command, &spec, &prepared).await.into(),
            Work::Task(task) => self.run_task(task, &spec, &prepared).await,
        };
        let end = RunEnd {
            run: spec.run,
            outcome: ending.outcome,
            // A command that was killed may have been writing; a task's file is always whole.
            has_whole_checkpoint: ending.exit_code >= 0 || spec.unit.command().is_none(),
        };
        let finished = tokio::task::spawn_blocking(move || shared.finish(prepared, end));
        match finished.await {
            Ok(Ok(Left { output, checkpoint })) => {
                ending.checkpoint = checkpoint;
                if let Some((uri, files)) = output {
                    ending.output_uri = uri;
                    ending.files = files;
                }
            }
            Ok(Err(error)) => ending.fail(
                if error.is_retryable() { Outcome::TaskError } else { Outcome::PermanentError },
                error.to_string(),
            ),
            Err(error) => ending.fail(Outcome::TaskError, format!("keeping the output failed: {error}")),
        }
        ending
    }

    async fn run_command(&self, command: &Command, spec: &RunSpec, prepared: &Prepared) -> CagedEnd {
        let run = CommandRun {
            around: self.around(spec, prepared, Some(&prepared.allocation)),
            command,
            items: &prepared.items,
            upstream: &prepared.upstream_file,
            checkpoint: prepared.checkpoint.as_deref(),
            allocation: &prepared.allocation,
            launcher: &self.shared.launcher,
        };
        run.run().await
    }

    async fn run_task(&self, task: &TypedTask, spec: &RunSpec, prepared: &Prepared) -> Ending {
        let name = &task.name;
        let Some(runnable) = self.shared.tasks.get(name) else {
            return Ending::failed(Outcome::Unsupported, format!("this worker has no task `{name}`"));
        };
        let parameters: Map<String, Value> =
            spec.parameters.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let parameters = Value::Object(parameters);
        if let Some(kind) = Kind::of(&spec.unit, &spec.reservation) {
            let run = IsolatedTaskRun {
                around: self.around(spec, prepared, None),
                task: name,
                parameters,
                items: &prepared.items,
                upstream: &prepared.upstream,
                checkpoint: prepared.checkpoint.as_deref(),
            };
            return run.run(kind).await.into();
        }
        let parts = ContextParts {
            run_id: spec.run.to_string(),
            shard_id: spec.shard.to_string(),
            attempt: spec.attempt,
            tenant: spec.tenant.clone(),
            items: prepared.items.clone(),
            upstream: prepared.upstream.clone(),
            output: prepared.folder.output().to_owned(),
            scratch: prepared.scratch.work().to_owned(),
            allocation: spec.allocation.watch().into(),
            checkpoint: prepared.kept.clone(),
            ..ContextParts::default()
        };
        let end = task_run::run(runnable, parameters, parts, spec, self.shared.options.checkpoint_within.0).await;
        Ending { usage: Some(end.usage), inline_json: end.result, ..Ending::of(end.verdict) }
    }

    fn around<'a>(
        &'a self,
        spec: &'a RunSpec,
        prepared: &'a Prepared,
        allocation: Option<&'a AllocationFile>,
    ) -> Surroundings<'a> {
        Surroundings {
            spec,
            folder: &prepared.folder,
            scratch: &prepared.scratch,
            allocation,
            slots: &self.shared.slots,
            mechanism: self.shared.enforcer.mechanism(),
            options: &self.shared.options,
        }
    }
}

/// What a run has once it can start.
#[derive(Debug)]
struct Prepared {
    items: Vec<Item>,
    upstream: Vec<UpstreamResult>,
    upstream_file: PathBuf,
    /// What an earlier attempt left; a task inside this process has it in memory.
    checkpoint: Option<PathBuf>,
    kept: Checkpoint,
    allocation: AllocationFile,
    folder: RunFolder,
    scratch: Scratch,
}

/// How a run ended, as far as it matters for what it left.
#[derive(Debug, Clone, Copy)]
struct RunEnd {
    run: RunId,
    outcome: Outcome,
    /// What it wrote as its checkpoint is whole, if it wrote one.
    has_whole_checkpoint: bool,
}

/// What a run left.
#[derive(Debug, Default)]
struct Left {
    output: Option<(String, Vec<v1::OutputFile>)>,
    checkpoint: Option<v1::Checkpoint>,
}

impl Shared {
    fn prepare(&self, spec: &RunSpec) -> Result<Prepared, PrepareError> {
        let items = spec.items.iter().map(|item| {
            let path = self.roots.confine(&item.path)?;
            relative_name::check(&item.name)?;
            Ok(Item { path, name: item.name.clone(), bytes: Bytes(item.bytes) })
        });
        let items = items.collect::<Result<Vec<_>, PrepareError>>()?;
        let upstream = upstream::resolve(&self.store, &spec.upstream)?;
        let folder = self.store.create_run(spec.shard, spec.run)?;
        let scratch = self.scratch.create(spec.run).map_err(PrepareError::Scratch)?;
        let upstream_file = scratch.beside("upstream.json");
        let allocation = AllocationFile::new(scratch.beside("allocation.json"));
        if spec.unit.command().is_some() {
            let write = || std::fs::write(&upstream_file, serde_json::to_vec(&upstream)?);
            write().map_err(PrepareError::Scratch)?;
            allocation.write(&spec.reservation).map_err(PrepareError::Scratch)?;
        }
        let mut checkpoint = checkpoint_file::find(&self.store, spec.checkpoint.as_ref());
        let mut kept = Checkpoint::default();
        // Inside this process there is no need for a file.
        if spec.unit.is_in_process()
            && let Some(path) = checkpoint.take()
        {
            match Checkpoint::read(&path) {
                Ok(given) => kept = given,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a checkpoint cannot be read; the run begins anew");
                }
            }
        }
        Ok(Prepared { items, upstream, upstream_file, checkpoint, kept, allocation, folder, scratch })
    }

    /// Keeps the output of a success, and lists it; discards that of a failure, but for a checkpoint that is of use.
    /// Scratch is gone either way.
    fn finish(&self, prepared: Prepared, end: RunEnd) -> Result<Left, StoreError> {
        let Prepared { folder, scratch, kept, .. } = prepared;
        let output = if end.outcome == Outcome::Succeeded {
            folder
                .seal(self.options.most_output_files, self.options.sync_outputs)
                .map(|files| Left { output: Some((folder.uri(), files)), checkpoint: None })
        } else {
            // Losing a checkpoint costs time; losing the outcome would cost the truth.
            let checkpoint = self.checkpoint(&folder, &kept, end).unwrap_or_else(|error| {
                tracing::warn!(run = %end.run, %error, "a checkpoint cannot be kept; the next attempt begins anew");
                None
            });
            Ok(Left { output: None, checkpoint })
        };
        // It is renamed where it counts.
        for part in checkpoint_file::parts(&folder) {
            let _ = std::fs::remove_file(part);
        }
        if !matches!(output, Ok(Left { output: Some(_), .. }))
            && let Err(error) = folder.discard()
        {
            tracing::warn!(%error, "the output of a failed run stays");
        }
        if let Err(error) = scratch.remove() {
            tracing::warn!(%error, "a scratch folder stays until the next start");
        }
        output
    }

    /// What the next attempt begins with: of a task what it kept, of a command what it wrote before it exited.
    fn checkpoint(
        &self,
        folder: &RunFolder,
        kept: &Checkpoint,
        end: RunEnd,
    ) -> Result<Option<v1::Checkpoint>, StoreError> {
        if !matches!(end.outcome, Outcome::Drained | Outcome::Preempted) {
            return Ok(None);
        }
        match kept.kept() {
            Some(bytes) => checkpoint_file::write(folder, end.run, &bytes),
            None if end.has_whole_checkpoint => checkpoint_file::keep(folder, end.run, self.options.checkpoint_limit),
            None => Ok(None),
        }
    }
}

impl From<CagedEnd> for Ending {
    fn from(end: CagedEnd) -> Self {
        let CagedEnd { verdict, usage, log_tail, result } = end;
        Self { usage, log_tail, inline_json: result, ..Self::of(verdict) }
    }
}

impl Ending {
    fn of(verdict: Verdict) -> Self {
        let Verdict { outcome, error, exit_code, signal } = verdict;
        Self { exit_code, signal, ..Self::failed(outcome, error) }
    }

    fn fail(&mut self, outcome: Outcome, error: String) {
        self.outcome = outcome;
        self.error = error;
        self.inline_json.clear();
    }
}

/// Why a run could not start.
#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error(transparent)]
    Input(#[from] InputError),
    #[error(transparent)]
    Name(#[from] NotRelative),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot make the run's scratch folder: {0}")]
    Scratch(#[source] std::io::Error),
}

impl PrepareError {
    fn outcome(&self) -> Outcome {
        let passing = match self {
            Self::Input(error) => error.is_retryable(),
            Self::Name(_) => false,
            Self::Upstream(error) => error.is_retryable(),
            Self::Store(error) => error.is_retryable(),
            Self::Scratch(_) => true,
        };
        if passing { Outcome::TaskError } else { Outcome::PermanentError }
    }
}
