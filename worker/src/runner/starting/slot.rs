//! A cage, and what waits in it for a run.

use std::sync::Arc;
use std::time::Duration;

use forecastle_catalogue::{TypedTask, Unit, Work};
use forecastle_resources::ResourceVector;
use tokio::net::unix::pipe;

use crate::adjustment::allocation_file::threads;
use crate::enforcement::cage::{self, Cage};
use crate::enforcement::{Limits, Sample};
use crate::runner::launch::{Launched, Launcher};
use crate::runner::task_process::conversation::Conversation;

/// How long it may take to take a cage apart.
const DISMANTLE_WITHIN: Duration = Duration::from_secs(10);

/// What a slot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any command.
    Command,
    /// Any isolated task, with thread pools of this size: they cannot be changed once a process has started.
    Task {
        /// Threads.
        threads: u64,
    },
}

impl Kind {
    /// What runs of this unit need; `None` if they run inside the worker's process.
    pub(crate) fn of(unit: &Unit, reservation: &ResourceVector) -> Option<Self> {
        match &unit.work {
            Work::Command(_) => Some(Self::Command),
            Work::Task(TypedTask { isolated: true, .. }) => Some(Self::Task { threads: threads(reservation) }),
            Work::Task(TypedTask { isolated: false, .. }) => None,
        }
    }

    /// For metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Task { .. } => "task",
        }
    }
}

/// A cage, and what waits in it for a run. Dropping it kills that and removes the cage.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) cage: Arc<dyn Cage>,
    /// What the cage has measured before the run; nothing of it was used for the run.
    pub(crate) before: Sample,
    pub(crate) waiting: Waiting,
}

/// What waits.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// For its order, with the process inside the cage that will be the command.
    Launcher(Launcher),
    /// For its task, inside the cage.
    Task(Box<TaskProcess>),
}

/// The process of a task that is ready for it.
#[derive(Debug)]
pub(crate) struct TaskProcess {
    pub(crate) launched: Launched,
    pub(crate) conversation: Conversation,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
}

impl Slot {
    /// What it is as one that has waited: of other limits, and with nothing used so far. `None` if what waited is gone.
    /// Blocks for a millisecond or so.
    pub(crate) fn taken_by(mut self, limits: &Limits) -> Option<Self> {
        if !self.is_ready() {
            return None;
        }
        let resized = self.cage.resize(limits).and_then(|()| self.cage.sample());
        match resized {
            Ok(before) => {
                self.before = before.unwrap_or_default();
                (self.before.oom_kills == 0).then_some(self)
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "what was made ready cannot be used");
                None
            }
        }
    }

    /// False if what waits is gone.
    pub(crate) fn is_ready(&mut self) -> bool {
        match &mut self.waiting {
            Waiting::Launcher(launcher) => launcher.is_waiting(),
            Waiting::Task(process) => process.conversation.is_waiting() && process.launched.is_running(),
        }
    }

    /// Ends what waits and removes the cage.
    pub(crate) async fn dismantle(self) {
        let Self { cage, waiting, .. } = self;
        // The launcher sees that, and kills; what is in the cage is killed faster.
        drop(waiting);
        dismantle(&cage).await;
    }
}

/// Kills what is in the cage of a run and removes it.
pub(crate) async fn dismantle(cage: &Arc<dyn Cage>) {
    if let Err(error) = cage::dismantle(cage, DISMANTLE_WITHIN).await {
        tracing::error!(error = &error as &dyn std::error::Error, "a cage is left");
    }
}
