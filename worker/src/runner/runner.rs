//! The runner: from what a run is given to how it ended.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forecastle_catalogue::Work;
use forecastle_protos::ids::{RunId, ShardId, WorkerId};
use forecastle_protos::v1::{self, Outcome};
use forecastle_resources::Bytes;
use forecastle_task::{Checkpoint, ContextParts, Item, Registry, UpstreamResult};
use serde_json::{Map, Value};

use crate::adjustment::AllocationFile;
use crate::enforcement::{EnforcementError, Enforcer};
use crate::execution::Ending;
use crate::runner::allowed_roots::{AllowedRoots, InputError};
use crate::runner::checkpoint_file;
use crate::runner::command_run::CommandRun;
use crate::runner::options::RunnerOptions;
use crate::runner::output_store::{OutputStore, RunFolder, StoreError};
use crate::runner::relative_name::{self, NotRelative};
use crate::runner::run_spec::RunSpec;
use crate::runner::scratch::{Scratch, ScratchRoot};
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
    launcher: PathBuf,
    options: RunnerOptions,
}

impl Runner {
    /// A runner with these means. Makes the store's and the scratch folder, and removes what dead workers left in the
    /// latter. Blocks.
    pub fn new(
        worker: WorkerId,
        enforcer: Arc<dyn Enforcer>,
        roots: AllowedRoots,
        store: &Path,
        scratch: &Path,
        tasks: Registry,
        options: RunnerOptions,
    ) -> Result<Self, RunnerError> {
        let launcher = match &options.launcher {
            Some(launcher) => launcher.clone(),
            None => std::env::current_exe().map_err(RunnerError::OwnProgram)?.with_file_name(LAUNCHER),
        };
        if !launcher.is_file() {
            return Err(RunnerError::NoLauncher(launcher));
        }
        let (store, scratch) = (OutputStore::open(store)?, ScratchRoot::open(scratch, worker)?);
        Ok(Self { shared: Arc::new(Shared { enforcer, roots, store, scratch, tasks, launcher, options }) })
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
            Work::Command(command) => {
                let run = CommandRun {
                    spec: &spec,
                    command,
                    items: &prepared.items,
                    folder: &prepared.folder,
                    scratch: &prepared.scratch,
                    upstream: &prepared.upstream_file,
                    checkpoint: prepared.checkpoint.as_deref(),
                    allocation: &prepared.allocation,
                    launcher: &shared.launcher,
                    enforcer: &shared.enforcer,
                    options: &shared.options,
                };
                let end = run.run().await;
                Ending { usage: end.usage, log_tail: end.log_tail, ..Ending::of(end.verdict) }
            }
            Work::Task(name) => self.run_task(name, &spec, &prepared).await,
        };
        let end = RunEnd { run: spec.run, outcome: ending.outcome, exited: ending.exit_code >= 0 };
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

    async fn run_task(&self, name: &str, spec: &RunSpec, prepared: &Prepared) -> Ending {
        let Some(task) = self.shared.tasks.get(name) else {
            return Ending::failed(Outcome::Unsupported, format!("this worker has no task `{name}`"));
        };
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
        let parameters: Map<String, Value> =
            spec.parameters.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let end =
            task_run::run(task, Value::Object(parameters), parts, spec, self.shared.options.checkpoint_within.0).await;
        Ending { usage: Some(end.usage), inline_json: end.result, ..Ending::of(end.verdict) }
    }
}

/// What a run has once it can start.
#[derive(Debug)]
struct Prepared {
    items: Vec<Item>,
    upstream: Vec<UpstreamResult>,
    upstream_file: PathBuf,
    /// What an earlier attempt left; a task has it in memory.
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
    /// A process of its own ended by itself.
    exited: bool,
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
        if spec.unit.command().is_none()
            && let Some(path) = checkpoint.take()
        {
            let found = std::fs::metadata(&path).and_then(|found| {
                // More than that was never kept by a task.
                if found.len() > Checkpoint::LARGEST.0 {
                    Err(ErrorKind::FileTooLarge.into())
                } else {
                    std::fs::read(&path)
                }
            });
            match found {
                Ok(bytes) => kept = Checkpoint::of(bytes),
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
        let _ = std::fs::remove_file(checkpoint_file::part(&folder));
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
            // One that was killed may have been writing.
            None if end.exited => checkpoint_file::keep(folder, end.run, self.options.checkpoint_limit),
            None => Ok(None),
        }
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
