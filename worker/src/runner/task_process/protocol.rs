//! What a worker and the process of a task tell each other: one line of JSON for each message.

use std::path::PathBuf;

use forecastle_resources::ResourceVector;
use forecastle_task::{Item, UpstreamResult};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::runner::answer::Answer;

/// The variable that tells the worker's program to serve a task.
pub(crate) const VARIABLE: &str = "FORECASTLE_TASK_PROCESS";

/// One run of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskOrder {
    pub(crate) task: String,
    pub(crate) parameters: Value,
    pub(crate) run_id: String,
    pub(crate) shard_id: String,
    pub(crate) attempt: u32,
    pub(crate) tenant: String,
    pub(crate) items: Vec<Item>,
    pub(crate) upstream: Vec<UpstreamResult>,
    pub(crate) output: PathBuf,
    pub(crate) scratch: PathBuf,
    pub(crate) allocation: ResourceVector,
    /// The file that an earlier attempt left.
    pub(crate) checkpoint: Option<PathBuf>,
    /// The file for what this one keeps; it is replaced at once, so that it is always whole.
    pub(crate) keep_checkpoint_in: PathBuf,
}

/// From the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToTask {
    /// Comes first, and once.
    Run(Box<TaskOrder>),
    /// What it may use now.
    Allocation(ResourceVector),
    /// It should end early.
    Cancel,
}

/// From the task's process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum FromTask {
    /// It has started and waits for its order.
    Ready,
    /// The task has ended, and so does the process.
    Ended(Answer),
}
