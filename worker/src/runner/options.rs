//! How shards are run.

use std::path::PathBuf;
use std::time::Duration;

use forecastle_catalogue::HumanDuration;
use forecastle_resources::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How shards are run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunnerOptions {
    /// The program `forecastle-launch`. By default the one beside the worker's own program.
    pub launcher: Option<PathBuf>,
    /// The program that runs isolated tasks in processes of their own. By default the worker's own program, which knows
    /// the tasks.
    pub task_program: Option<PathBuf>,
    /// The most that is kept of a run's standard output (where it is no result) and of its standard error, each.
    pub log_limit: Bytes,
    /// The most files that a run may leave: they are all named in its completion event.
    pub most_output_files: usize,
    /// Waits until outputs are on the disk before a run succeeds. Without it they survive whatever happens to the
    /// worker, and may not survive a loss of power in the seconds after.
    pub sync_outputs: bool,
    /// How long a run that is drained or preempted has to leave a checkpoint before it is killed.
    pub checkpoint_within: HumanDuration,
    /// The largest checkpoint of a command. A larger one is not kept, and the next attempt begins anew.
    pub checkpoint_limit: Bytes,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            launcher: None,
            task_program: None,
            log_limit: Bytes::mib(8),
            most_output_files: 10_000,
            sync_outputs: false,
            checkpoint_within: HumanDuration(Duration::from_secs(10)),
            checkpoint_limit: Bytes::gib(1),
        }
    }
}
