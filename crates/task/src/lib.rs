//! What users implement: typed tasks, and the context they run in.
//!
//! A task is an asynchronous function inside the worker's process. It suits small work that would not be worth a
//! process of its own; whatever needs isolation or a memory limit is better a command of the catalogue.
//!
//! ```
//! use forecastle_task::{Context, Registry, Task, TaskError, async_trait};
//! use serde::{Deserialize, Serialize};
//!
//! struct CountBytes;
//!
//! #[derive(Deserialize)]
//! struct Parameters {
//!     #[serde(default)]
//!     skip_empty: bool,
//! }
//!
//! #[derive(Serialize)]
//! struct Counted {
//!     files: usize,
//!     bytes: u64,
//! }
//!
//! #[async_trait]
//! impl Task for CountBytes {
//!     const NAME: &'static str = "example.count-bytes";
//!     type Parameters = Parameters;
//!     type Output = Counted;
//!
//!     async fn run(&self, parameters: Parameters, context: &Context) -> Result<Counted, TaskError> {
//!         let mut counted = Counted { files: 0, bytes: 0 };
//!         for item in context.items() {
//!             let path = item.path.clone();
//!             // Blocking work leaves the runtime's threads, and its CPU time is measured all the same.
//!             let bytes = context.blocking(move || std::fs::metadata(path).map(|found| found.len())).await??;
//!             if bytes > 0 || !parameters.skip_empty {
//!                 counted.files += 1;
//!                 counted.bytes += bytes;
//!             }
//!         }
//!         Ok(counted)
//!     }
//! }
//!
//! let mut registry = Registry::new();
//! registry.register(CountBytes).expect("no other task has this name");
//! ```
//!
//! # Map
//!
//! - [`task`]: [`Task`] and [`TaskError`].
//! - [`context`]: [`Context`], all that a run is told and may touch.
//! - [`allocation`]: [`Allocation`], what a run may use, as that changes.
//! - [`checkpoint`]: [`Checkpoint`], where an earlier attempt came to, and where this one has come to.
//! - [`input`]: [`Item`] and [`UpstreamResult`], what a run reads.
//! - [`progress`]: [`Progress`], how far a run is.
//! - [`cpu_meter`]: [`CpuMeter`], the CPU time of a task that shares its threads with others.
//! - [`registry`]: [`Registry`], tasks by name, their types erased.
//!
//! # What always holds
//!
//! Nothing here knows the wire, the broker or the ledger. A run's folders are its own: nobody else writes there, and
//! the scratch folder is gone when the run has ended.

pub mod allocation;
pub mod checkpoint;
pub mod context;
pub mod cpu_meter;
pub mod input;
pub mod progress;
pub mod registry;
pub mod task;

pub use allocation::Allocation;
pub use async_trait::async_trait;
pub use checkpoint::{Checkpoint, CheckpointTooLarge};
pub use context::{Context, ContextParts};
pub use cpu_meter::{CpuMeter, Metered};
pub use input::{Item, OutputFile, UpstreamResult};
pub use progress::Progress;
pub use registry::{NameTaken, Registry, RunnableTask};
pub use task::{BoxError, Task, TaskError};
