//! Making slots.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forecastle_protos::v1::Outcome;

use crate::enforcement::cage;
use crate::enforcement::launcher::protocol::LaunchOrder;
use crate::enforcement::{Cage, EnforcementError, Enforcer, Limits, Sample};
use crate::runner::environment::{self, PATH};
use crate::runner::launch::{Launcher, Streams};
use crate::runner::logs::open_pipe;
use crate::runner::starting::slot::{Kind, Slot, TaskProcess, Waiting, dismantle};
use crate::runner::task_process::conversation::Conversation;
use crate::runner::task_process::protocol::VARIABLE;

/// How long the program that serves tasks may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Makes slots.
#[derive(Debug, Clone)]
pub(crate) struct Starter {
    pub(crate) enforcer: Arc<dyn Enforcer>,
    /// The program `forecastle-launch`.
    pub(crate) launcher: PathBuf,
    /// The program that serves tasks.
    pub(crate) task_program: PathBuf,
}

/// Why there is no slot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("the limits of this run cannot be set: {error}{}", why(error))]
    Limits { error: EnforcementError },
    #[error("{} cannot be started: {source}", program.display())]
    Launcher { program: PathBuf, source: io::Error },
    #[error("the process for the task was killed for memory before it was ready: {0} is too little for it")]
    OutOfMemory(String),
    #[error(
        "{} does not serve tasks: {why}. It must come to `Worker::builder(…).run()` without its configuration",
        program.display()
    )]
    NotReady { program: PathBuf, why: String },
    #[error("the worker failed: {0}")]
    Worker(String),
}

fn why(error: &EnforcementError) -> String {
    std::error::Error::source(error).map(|why| format!(": {why}")).unwrap_or_default()
}

impl StartError {
    /// How a run ends that has nowhere to start.
    pub(crate) const fn outcome(&self) -> Outcome {
        match self {
            Self::OutOfMemory(_) => Outcome::OutOfMemory,
            _ => Outcome::TaskError,
        }
    }
}

impl Starter {
    /// Makes a slot; `name` is that of its cage.
    pub(crate) async fn start(&self, name: String, kind: Kind, limits: Limits) -> Result<Slot, StartError> {
        let enforcer = Arc::clone(&self.enforcer);
        let created = tokio::task::spawn_blocking(move || enforcer.create(&name, &limits)).await;
        let cage: Arc<dyn Cage> = match created {
            Ok(Ok(cage)) => Arc::from(cage),
            Ok(Err(error)) => return Err(StartError::Limits { error }),
            Err(error) => return Err(StartError::Worker(error.to_string())),
        };
        let launcher = Launcher::start(&self.launcher, cage.joining())
            .map_err(|source| StartError::Launcher { program: self.launcher.clone(), source })?;
        let waiting = match kind {
            Kind::Command => Waiting::Launcher(launcher),
            Kind::Task { threads } => match self.task_process(launcher, threads).await {
                Ok(process) => Waiting::Task(Box::new(process)),
                Err(why) => {
                    let error = self.not_ready(&cage, &limits, why).await;
                    dismantle(&cage).await;
                    return Err(error);
                }
            },
        };
        Ok(Slot { cage, before: Sample::default(), waiting })
    }

    async fn task_process(&self, launcher: Launcher, threads: u64) -> Result<TaskProcess, String> {
        let begin = async {
            let (conversation, stdin) = Conversation::open()?;
            let ((stdout, out), (stderr, err)) = (open_pipe()?, open_pipe()?);
            let order = task_order(&self.task_program, threads)?;
            let launched = launcher.launch(&order, Streams { stdin, stdout: out, stderr: err }).await?;
            Ok::<_, io::Error>(TaskProcess { launched, conversation, stdout, stderr })
        };
        let mut process = begin.await.map_err(|error| error.to_string())?;
        match tokio::time::timeout(READY_WITHIN, process.conversation.ready()).await {
            Ok(ready) => ready.map(|()| process),
            Err(_) => Err(format!("it was not ready within {READY_WITHIN:?}")),
        }
    }

    async fn not_ready(&self, cage: &Arc<dyn Cage>, limits: &Limits, why: String) -> StartError {
        if cage::is_out_of_memory(cage).await {
            return StartError::OutOfMemory(limits.memory.unwrap_or_default().to_string());
        }
        StartError::NotReady { program: self.task_program.clone(), why }
    }
}

/// What starts the process of a task. Its scratch folder is not known yet.
fn task_order(program: &Path, threads: u64) -> io::Result<LaunchOrder> {
    let text = program.to_str().ok_or_else(|| io::Error::other("the path of the program is not UTF-8"))?;
    let mut environment: BTreeMap<String, String> =
        [("PATH", PATH), ("LC_ALL", "C.UTF-8"), (VARIABLE, "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    environment.extend(environment::thread_pools(threads));
    Ok(LaunchOrder { argv: vec![text.to_owned()], environment, directory: PathBuf::from("/") })
}
