//! A typed task in this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forecastle_admission::UsageSample;
use forecastle_protos::v1;
use forecastle_resources::Bytes;
use forecastle_task::{Context, ContextParts, CpuMeter, RunnableTask, TaskError};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::adjustment::{Bounds, Follower};
use crate::runner::answer::Answer;
use crate::runner::meter::milliseconds;
use crate::runner::run_spec::RunSpec;
use crate::runner::scratch_meter::ScratchMeter;
use crate::runner::stop_cause::{StopCause, StopWatch};
use crate::runner::verdict::Verdict;

/// How long a task that was told to end may take to do so by itself.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// How long an aborted task may take to reach its next await.
const ABORT_WITHIN: Duration = Duration::from_secs(1);

/// How a task ended.
#[derive(Debug)]
pub(crate) struct TaskEnd {
    pub(crate) verdict: Verdict,
    pub(crate) usage: v1::Usage,
    pub(crate) result: String,
}

/// Runs a task to its end; one that is to be run again has `farewell` to keep a checkpoint. Its memory cannot be told from the worker's and is not measured.
pub(crate) async fn run(
    task: Arc<dyn RunnableTask>,
    parameters: Value,
    parts: ContextParts,
    spec: &RunSpec,
    farewell: Duration,
) -> TaskEnd {
    let started = Instant::now();
    let on_disk = ScratchMeter::start(&parts.scratch, spec.reservation.scratch, spec.usage.clone());
    let watch = StopWatch::start(spec.stop.clone(), spec.limit, CancellationToken::new(), on_disk.overuse());
    let (cpu, cancellation) = (parts.cpu.clone(), parts.cancellation.clone());
    let bounds = Bounds::of(&spec.unit, Bytes::ZERO, false);
    let _following = Follower::new(&spec.allocation, bounds, None, None)
        .map(|follower| AbortOnDropHandle::new(tokio::spawn(follow(follower, cpu.clone()))));
    let context = Context::new(parts);
    // In a task of the runtime's own, a panic is an answer.
    let future = cpu.metered(async move { task.run(parameters, &context).await });
    let mut handle = AbortOnDropHandle::new(tokio::spawn(future));
    let (verdict, result) = tokio::select! {
        biased;
        ended = &mut handle => Answer::of(ended).judge(),
        cause = watch.cause() => {
            cancellation.cancel();
            stop(handle, &cause, if cause.continues() { farewell.max(GRACE) } else { GRACE }).await
        }
    };
    let usage = v1::Usage {
        cpu_ms: milliseconds(cpu.total()),
        duration_ms: milliseconds(started.elapsed()),
        source: "in-process".to_owned(),
        ..v1::Usage::default()
    };
    TaskEnd { verdict, usage, result }
}

/// Follows its CPU time until the task has ended.
async fn follow(mut follower: Follower, cpu: CpuMeter) {
    let mut due = follower.interval();
    loop {
        tokio::time::sleep(due).await;
        due = follower.heed(UsageSample { cpu: Some(cpu.total()), ..UsageSample::default() }).await;
    }
}

async fn stop(
    mut handle: AbortOnDropHandle<Result<Value, TaskError>>,
    cause: &StopCause,
    grace: Duration,
) -> (Verdict, String) {
    if let Ok(ended) = tokio::time::timeout(grace, &mut handle).await {
        let (verdict, result) = Answer::of(ended).judge();
        // It had succeeded at that very moment; any other end is that of a task that was stopped.
        return if verdict.is_success() { (verdict, result) } else { (Verdict::stopped(cause), String::new()) };
    }
    handle.abort();
    if tokio::time::timeout(ABORT_WITHIN, &mut handle).await.is_err() {
        tracing::error!(
            "a task that was stopped blocks a thread of the runtime: blocking work belongs in Context::blocking"
        );
    }
    (Verdict::stopped(cause), String::new())
}
