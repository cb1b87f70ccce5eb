//! Running one shard: inside its limits, measured, and with nothing left but its output.
//!
//! # Map
//!
//! - [`runner`]: [`Runner`], from a [`RunSpec`] to an [`Ending`](crate::execution::Ending); [`options`].
//! - [`run_spec`]: what a run is given; [`local_executor`]: the runner behind the seam of the claiming half.
//! - [`allowed_roots`]: where inputs may be; [`relative_name`]: names that stay where they belong.
//! - [`output_store`]: a run's own folder in the store; [`scratch`]: what is gone after it.
//! - [`checkpoint_file`]: where a run that was stopped came to, for the next attempt.
//! - [`upstream`]: results of earlier stages, resolved in the store.
//! - [`starting`]: cages with what waits in them for a run, made at once or ahead of the work.
//! - `enclosure`: what is around the processes of a run; [`launch`]: the worker's end of the launcher.
//! - [`command_run`]: a command, once or once for each item; [`environment`]: what it is told; [`logs`] and
//!   [`bounded_log`]: what it says; [`verdict`]: what its end means.
//! - [`task_run`]: a typed task in this process; `isolated_task_run`, [`task_process`]: one in a process of its own;
//!   `answer`: how either ended.
//! - [`meter`]: what a run uses; [`scratch_meter`]: what it has on scratch disk; [`stop_cause`]: why it ends early.
//!
//! # What always holds
//!
//! When a run has ended, none of its processes is left, its scratch folder and its cage are gone, and its output is
//! either complete and read-only or not there. No argument ever passes through a shell.

pub mod allowed_roots;
mod answer;
pub mod bounded_log;
pub mod checkpoint_file;
pub mod command_run;
mod enclosure;
pub mod environment;
mod isolated_task_run;
pub mod launch;
pub mod local_executor;
pub mod logs;
pub mod meter;
pub mod options;
pub mod output_store;
pub mod recent_rate;
pub mod relative_name;
pub mod run_spec;
#[expect(clippy::module_inception, reason = "the runner is the module's main type, and files are named by types")]
pub mod runner;
pub mod scratch;
pub mod scratch_meter;
pub mod starting;
pub mod stop_cause;
pub mod task_process;
pub mod task_run;
pub mod upstream;
pub mod verdict;

pub use allowed_roots::AllowedRoots;
pub use local_executor::LocalExecutor;
pub use options::RunnerOptions;
pub use output_store::OutputStore;
pub use run_spec::RunSpec;
pub use runner::{Places, Runner, RunnerError};
pub use starting::PreallocationOptions;
