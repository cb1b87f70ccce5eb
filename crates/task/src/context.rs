//! All that a run is told and may touch.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forecastle_resources::ResourceVector;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::allocation::Allocation;
use crate::checkpoint::{Checkpoint, CheckpointTooLarge};
use crate::cpu_meter::CpuMeter;
use crate::input::{Item, UpstreamResult};
use crate::progress::Progress;
use crate::task::TaskError;

/// What a [`Context`] is made of. Tests of tasks need little of it:
/// `ContextParts { output: folder, ..ContextParts::default() }`.
#[derive(Debug, Clone, Default)]
pub struct ContextParts {
    /// The run's id.
    pub run_id: String,
    /// The shard's id.
    pub shard_id: String,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The tenant.
    pub tenant: String,
    /// What the shard reads.
    pub items: Vec<Item>,
    /// What the stages before it produced.
    pub upstream: Vec<UpstreamResult>,
    /// Where files that are kept go; exists and is empty.
    pub output: PathBuf,
    /// Where files that are not kept go; exists and is empty.
    pub scratch: PathBuf,
    /// What this run may use.
    pub allocation: Allocation,
    /// Cancelled when the run should end early.
    pub cancellation: CancellationToken,
    /// How far the run is.
    pub progress: Progress,
    /// Its CPU time.
    pub cpu: CpuMeter,
    /// Where earlier attempts came to, and where this one has come to.
    pub checkpoint: Checkpoint,
}

/// All that a run is told and may touch. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    parts: Arc<ContextParts>,
}

impl Context {
    /// The context of one run.
    pub fn new(parts: ContextParts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// One execution of an attempt on one worker. It differs between runs of the same shard: keep it out of results.
    pub fn run_id(&self) -> &str {
        &self.parts.run_id
    }

    /// The shard, `<request>.<stage>.<index>`: the same for all its runs.
    pub fn shard_id(&self) -> &str {
        &self.parts.shard_id
    }

    /// The attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.parts.attempt
    }

    /// Whose request it is.
    pub fn tenant(&self) -> &str {
        &self.parts.tenant
    }

    /// The files that this shard reads; empty in a stage that runs once.
    pub fn items(&self) -> &[Item] {
        &self.parts.items
    }

    /// What the shards of the stages before this one produced, in the ledger's order.
    pub fn upstream(&self) -> &[UpstreamResult] {
        &self.parts.upstream
    }

    /// The folder for files that are kept. They become read-only when the run has succeeded.
    pub fn output(&self) -> &Path {
        &self.parts.output
    }

    /// A folder that is gone when the run has ended.
    pub fn scratch(&self) -> &Path {
        &self.parts.scratch
    }

    /// What this run may use: `borrow` is what it is now, and `changed` waits for the next change (an error says that
    /// there will be none). Inside the worker's process nothing enforces it: keep to it.
    pub fn allocation(&self) -> watch::Receiver<ResourceVector> {
        self.parts.allocation.watch()
    }

    /// Threads that make sense now: the allocated cores, rounded up, at least one.
    pub fn threads(&self) -> usize {
        usize::try_from(self.parts.allocation.now().cpu.get().div_ceil(1000)).unwrap_or(usize::MAX).max(1)
    }

    /// Cancelled when the run should end early. Why, the worker knows.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.parts.cancellation
    }

    /// True once the run should end early.
    pub fn is_cancelled(&self) -> bool {
        self.parts.cancellation.is_cancelled()
    }

    /// How far the run is, for those who watch.
    pub fn progress(&self) -> &Progress {
        &self.parts.progress
    }

    /// What the last attempt that was stopped kept with [`Self::keep_checkpoint`], if it did. It may have come from
    /// another machine and from another version of the task: a task that cannot read it begins anew.
    pub fn checkpoint(&self) -> Option<&[u8]> {
        self.parts.checkpoint.given()
    }

    /// Says where the run has come to, as often as it likes; the last word counts. If the run is drained or preempted,
    /// the next attempt finds it in [`Self::checkpoint`]. A run that is told to end ([`Self::cancellation`]) still has
    /// a moment to keep one.
    pub fn keep_checkpoint(&self, checkpoint: impl Into<Vec<u8>>) -> Result<(), CheckpointTooLarge> {
        self.parts.checkpoint.keep(checkpoint.into())
    }

    /// Runs blocking work (files, long computations) on a thread where it may block. Its CPU time is counted as the
    /// run's; a panic in it is one of the task. It cannot be stopped from outside: long work looks at
    /// [`Self::cancellation`] now and then.
    pub async fn blocking<T, F>(&self, work: F) -> Result<T, TaskError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let meter = self.parts.cpu.clone();
        match tokio::task::spawn_blocking(move || meter.measure(work)).await {
            Ok(value) => Ok(value),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(TaskError::retryable("the worker stopped before the work began")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use forecastle_resources::{Bytes, CpuMillis};

    use super::*;

    #[test]
    fn threads_are_the_allocated_cores_rounded_up() {
        for (millis, threads) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (4000, 4)] {
            let allocation = ResourceVector::new(CpuMillis(millis), Bytes::ZERO).into();
            let context = Context::new(ContextParts { allocation, ..ContextParts::default() });
            assert_eq!(context.threads(), threads, "{millis}m");
        }
    }

    #[tokio::test]
    async fn the_allocation_can_be_watched() {
        let vector = |millis| ResourceVector::new(CpuMillis(millis), Bytes::ZERO);
        let told = watch::Sender::new(vector(1000));
        let context = Context::new(ContextParts { allocation: told.subscribe().into(), ..ContextParts::default() });
        let mut allocation = context.allocation();
        let watching = tokio::spawn(async move {
            allocation.changed().await.unwrap();
            allocation.borrow().cpu
        });
        told.send_replace(vector(2500));
        assert_eq!((watching.await.unwrap(), context.threads()), (CpuMillis(2500), 3));
        drop(told);
        assert!(context.allocation().changed().await.is_err(), "there will be no more");
    }

    #[tokio::test]
    async fn blocking_work_is_measured_and_its_panic_is_the_tasks() {
        let cpu = CpuMeter::new();
        let context = Context::new(ContextParts { cpu: cpu.clone(), ..ContextParts::default() });
        let sum = context.blocking(|| (0..20_000_000u64).map(std::hint::black_box).sum::<u64>()).await.unwrap();
        assert_eq!(sum, 199_999_990_000_000);
        assert!(cpu.total() > Duration::ZERO);

        let clone = context.clone();
        let panicked = tokio::spawn(async move { clone.blocking(|| panic!("as it should")).await }).await;
        assert!(panicked.unwrap_err().is_panic());
    }
}
