//! A typed task in a process of its own, in a cage.

use std::path::Path;
use std::time::Duration;

use forecastle_protos::v1::Outcome;
use forecastle_task::{Item, UpstreamResult};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::enforcement::cage;
use crate::enforcement::launcher::protocol::LaunchReport;
use crate::runner::answer::Answer;
use crate::runner::checkpoint_file;
use crate::runner::enclosure::{CagedEnd, Enclosure, Surroundings};
use crate::runner::launch::{Conclusion, Farewell};
use crate::runner::starting::{Kind, TaskProcess, Waiting};
use crate::runner::stop_cause::StopCause;
use crate::runner::task_process::protocol::TaskOrder;
use crate::runner::task_run::GRACE;
use crate::runner::verdict::{Verdict, how_it_ended};

/// How long an answer may take to be read once the process has ended.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How long a process that talks nonsense may take to die.
const END_WITHIN: Duration = Duration::from_secs(10);

/// What an isolated task has.
#[derive(Debug)]
pub(crate) struct IsolatedTaskRun<'a> {
    pub(crate) around: Surroundings<'a>,
    pub(crate) task: &'a str,
    pub(crate) parameters: Value,
    pub(crate) items: &'a [Item],
    pub(crate) upstream: &'a [UpstreamResult],
    /// What an earlier attempt left.
    pub(crate) checkpoint: Option<&'a Path>,
}

impl IsolatedTaskRun<'_> {
    /// Runs it to its end. Then none of its processes is left, nor its cage.
    pub(crate) async fn run(&self, kind: Kind) -> CagedEnd {
        let (mut enclosure, waiting) = match self.around.set_up(kind).await {
            Ok(begun) => begun,
            Err(end) => return end,
        };
        let (verdict, result) = match waiting {
            Waiting::Task(process) => self.converse(*process, &mut enclosure).await,
            Waiting::Launcher(_) => {
                (Verdict::failed(Outcome::TaskError, "there is no process for the task"), String::new())
            }
        };
        enclosure.take_down(verdict, result).await
    }

    async fn converse(&self, process: TaskProcess, enclosure: &mut Enclosure) -> (Verdict, String) {
        let TaskProcess { launched, conversation, stdout, stderr } = process;
        let following = enclosure.logs.follow(Some(stdout), stderr);
        let told = CancellationToken::new();
        let answering = conversation.run(self.order(), self.around.spec.allocation.watch(), told.clone());
        let farewell = |cause: &StopCause| {
            told.cancel();
            let time = if cause.continues() { self.around.options.checkpoint_within.0.max(GRACE) } else { GRACE };
            Farewell::Time(time)
        };
        let concluding = async {
            let conclusion = launched.conclude(&enclosure.cage, &enclosure.watch, farewell).await;
            // Whatever it has said can be read now.
            (conclusion, tokio::time::Instant::now() + ANSWER_WITHIN)
        };
        let mut answering = std::pin::pin!(answering);
        let (conclusion, answer) = {
            let mut concluding = std::pin::pin!(concluding);
            tokio::select! {
                answer = &mut answering => {
                    // A process that was made to serve one task ends with it; one that talks nonsense is ended.
                    if answer.is_err()
                        && let Err(error) = cage::empty(&enclosure.cage, END_WITHIN).await
                    {
                        tracing::error!(error = &error as &dyn std::error::Error, "a run cannot be killed");
                    }
                    (concluding.await.0, answer)
                }
                (conclusion, until) = &mut concluding => {
                    let late = tokio::time::timeout_at(until, answering).await;
                    (conclusion, late.unwrap_or(Ok(None)))
                }
            }
        };
        following.finish(&mut enclosure.logs).await;
        enclosure.note(&conclusion.report);
        let out_of_memory = cage::is_out_of_memory(&enclosure.cage).await;
        self.judge(answer, &conclusion, out_of_memory, &enclosure.logs.tail())
    }

    /// As with commands: out of memory comes before everything; then success; then the reason for stopping it; then
    /// what it says itself.
    fn judge(
        &self,
        answer: Result<Option<Answer>, String>,
        conclusion: &Conclusion,
        out_of_memory: bool,
        log_tail: &str,
    ) -> (Verdict, String) {
        let (exit_code, signal) = match &conclusion.report {
            Ok(LaunchReport::Ended(ended)) => (ended.exit_code.unwrap_or(-1), ended.signal.unwrap_or(0)),
            _ => (-1, 0),
        };
        let failed = |outcome, error| (Verdict { outcome, error, exit_code, signal }, String::new());
        if out_of_memory {
            return failed(Outcome::OutOfMemory, format!("the task `{}` was killed for memory", self.task));
        }
        let answered = match answer {
            Ok(Some(answer)) => Some(answer.judge()),
            Ok(None) => None,
            Err(why) => {
                let why = format!("the process of the task `{}`: {why}", self.task);
                Some((Verdict::failed(Outcome::TaskError, why), String::new()))
            }
        };
        match (answered, &conclusion.cause) {
            (Some((verdict, result)), _) if verdict.is_success() => (verdict, result),
            (_, Some(cause)) => failed(cause.outcome(), cause.explanation()),
            (Some(failure), None) => failure,
            (None, None) => {
                let subject = format!("the process of the task `{}`", self.task);
                let how = match &conclusion.report {
                    Ok(LaunchReport::Ended(ended)) => how_it_ended(&subject, "", ended, log_tail),
                    Ok(LaunchReport::Failed(failure)) => format!("{subject} could not be started: {failure}"),
                    Err(why) => format!("the launcher of {subject} failed: {why}"),
                };
                failed(Outcome::TaskError, how)
            }
        }
    }

    fn order(&self) -> TaskOrder {
        let Surroundings { spec, folder, scratch, .. } = self.around;
        TaskOrder {
            task: self.task.to_owned(),
            parameters: self.parameters.clone(),
            run_id: spec.run.to_string(),
            shard_id: spec.shard.to_string(),
            attempt: spec.attempt,
            tenant: spec.tenant.clone(),
            items: self.items.to_vec(),
            upstream: self.upstream.to_vec(),
            output: folder.output().to_owned(),
            scratch: scratch.work().to_owned(),
            allocation: spec.reservation.clone(),
            checkpoint: self.checkpoint.map(Path::to_owned),
            keep_checkpoint_in: checkpoint_file::part(folder),
        }
    }
}
