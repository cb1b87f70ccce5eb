//! One process of a run, by way of the launcher.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::enforcement::cage::{self, Cage};
use crate::enforcement::launcher::SUPERVISE;
use crate::enforcement::launcher::protocol::{LaunchOrder, LaunchReport, TELL_TO_END};
use crate::runner::bounded_log::BoundedLog;
use crate::runner::stop_cause::{StopCause, StopWatch};

/// How long a launcher may take to report after it was told to kill; it gives up on immortal processes before.
const REPORT_WITHIN: Duration = Duration::from_secs(25);

/// How long what was left in the cage may take to die.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// How long to read on from what all processes of the run should have closed.
const LOGS_WITHIN: Duration = Duration::from_secs(2);

/// The longest report.
const LONGEST_REPORT: u64 = 1 << 20;

/// Where a command's standard output goes.
#[derive(Debug)]
pub enum Stdout {
    /// A result.
    Result(File),
    /// What it says.
    Log,
}

/// The logs of a run, to which all its processes append.
#[derive(Debug)]
pub struct Logs {
    /// Standard output where it is no result.
    pub stdout: Option<BoundedLog>,
    /// Standard error.
    pub stderr: Option<BoundedLog>,
}

/// How it went.
#[derive(Debug)]
pub struct Conclusion {
    /// What the launcher said, or why it said nothing.
    pub report: Result<LaunchReport, String>,
    /// Why the worker killed it, if it did.
    pub cause: Option<StopCause>,
}

/// Runs a process to its end, or until there is a cause to stop it. If the same work is to be done again it is told to
/// end and has `farewell` to do so, to leave a checkpoint; for any other cause, and after that, it is killed. Then all processes that it started are gone.
pub async fn invoke(
    launcher: &Path,
    order: &LaunchOrder,
    stdout: Stdout,
    logs: &mut Logs,
    cage: &Arc<dyn Cage>,
    watch: &StopWatch,
    farewell: Duration,
) -> Conclusion {
    match Invocation::start(launcher, order, stdout, logs).await {
        Ok(invocation) => invocation.conclude(logs, cage, watch, farewell).await,
        Err(error) => {
            let report = Err(format!("{} cannot be started: {error}", launcher.display()));
            Conclusion { report, cause: None }
        }
    }
}

struct Invocation {
    launcher: Child,
    /// Closing it is the order to kill; it closes by itself if the future that holds it is dropped.
    order: OwnedWriteHalf,
    report: BufReader<OwnedReadHalf>,
    stdout: Option<JoinHandle<BoundedLog>>,
    stderr: Option<JoinHandle<BoundedLog>>,
    give_up_reading: CancellationToken,
}

impl Invocation {
    async fn start(launcher: &Path, order: &LaunchOrder, stdout: Stdout, logs: &mut Logs) -> io::Result<Self> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut child = Command::new(launcher)
            .arg(SUPERVISE)
            .env_clear()
            // What a terminal sends to the worker's group is for the worker.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(match stdout {
                Stdout::Result(file) => Stdio::from(file),
                Stdout::Log => Stdio::piped(),
            })
            .stderr(Stdio::piped())
            .spawn()?;
        let give_up_reading = CancellationToken::new();
        let follow_stdout = child.stdout.take().zip(logs.stdout.take());
        let follow_stderr = child.stderr.take().zip(logs.stderr.take());
        let stdout = follow_stdout.map(|(pipe, log)| tokio::spawn(log.follow(pipe, give_up_reading.clone())));
        let stderr = follow_stderr.map(|(pipe, log)| tokio::spawn(log.follow(pipe, give_up_reading.clone())));
        let (report, mut write) = UnixStream::from_std(ours)?.into_split();
        // A launcher that dies before it has read everything says nothing later.
        let _ = write.write_all(&line).await;
        let report = BufReader::new(report);
        Ok(Self { launcher: child, order: write, report, stdout, stderr, give_up_reading })
    }

    async fn conclude(
        self,
        logs: &mut Logs,
        cage: &Arc<dyn Cage>,
        watch: &StopWatch,
        farewell: Duration,
    ) -> Conclusion {
        let Self { mut launcher, mut order, report, stdout, stderr, give_up_reading } = self;
        let mut cause = None;
        let report = {
            let reading = read_report(report);
            tokio::pin!(reading);
            tokio::select! {
                biased;
                report = &mut reading => report,
                why = watch.cause() => {
                    let mut ended = None;
                    if why.continues() && !farewell.is_zero() && order.write_all(TELL_TO_END).await.is_ok() {
                        ended = tokio::time::timeout(farewell, &mut reading).await.ok();
                    }
                    cause = Some(why);
                    drop(order);
                    if let Some(report) = ended {
                        report
                    } else {
                        // Faster than the launcher, and stronger against what forks.
                        if let Err(error) = cage::empty(cage, EMPTY_WITHIN).await {
                            tracing::error!(error = &error as &dyn std::error::Error, "a run cannot be killed");
                        }
                        let late = tokio::time::timeout(REPORT_WITHIN, reading).await;
                        late.unwrap_or_else(|_| Err("it does not answer".to_owned()))
                    }
                }
            }
        };
        if report.is_err() {
            // Whatever it is doing, it is of no use any more.
            let _ = launcher.start_kill();
        }
        if let Err(error) = launcher.wait().await {
            tracing::warn!(%error, "a launcher could not be waited for");
        }
        if let Err(error) = cage::empty(cage, EMPTY_WITHIN).await {
            tracing::error!(error = &error as &dyn std::error::Error, "a run left processes that cannot be killed");
        }
        let limit = tokio::spawn({
            let give_up_reading = give_up_reading.clone();
            async move {
                tokio::time::sleep(LOGS_WITHIN).await;
                give_up_reading.cancel();
            }
        });
        for (task, log) in [(stdout, &mut logs.stdout), (stderr, &mut logs.stderr)] {
            if let Some(task) = task {
                *log = task.await.inspect_err(|error| tracing::error!(%error, "reading a log failed")).ok();
            }
        }
        limit.abort();
        Conclusion { report, cause }
    }
}

async fn read_report(report: BufReader<OwnedReadHalf>) -> Result<LaunchReport, String> {
    let mut line = Vec::new();
    match report.take(LONGEST_REPORT).read_until(b'\n', &mut line).await {
        Ok(0) => Err("it ended without a word".to_owned()),
        Ok(_) => serde_json::from_slice(&line).map_err(|error| format!("its report makes no sense: {error}")),
        Err(error) => Err(error.to_string()),
    }
}
