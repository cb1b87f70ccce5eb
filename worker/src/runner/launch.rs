//! The worker's end of the launcher: from one that waits for its order to how what it started has ended.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};

use crate::enforcement::cage::{self, Cage};
use crate::enforcement::launcher::protocol::{LaunchOrder, LaunchReport, TELL_TO_END};
use crate::enforcement::launcher::{SUPERVISE, descriptors};
use crate::runner::stop_cause::{StopCause, StopWatch};

/// How long a launcher may take to report after it was told to kill; it gives up on immortal processes before.
const REPORT_WITHIN: Duration = Duration::from_secs(25);

/// How long what was left in the cage may take to die.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// The longest report.
const LONGEST_REPORT: u64 = 1 << 20;

/// A launcher that waits for its order. Dropping it ends it.
#[derive(Debug)]
pub struct Launcher {
    process: Child,
    socket: StdUnixStream,
}

/// What a program reads from and writes to.
#[derive(Debug)]
pub struct Streams {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

impl Launcher {
    /// Starts `program`, for a cage that is joined by writing to these files.
    pub fn start(program: &Path, joining: &[PathBuf]) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let process = Command::new(program)
            .arg(SUPERVISE)
            .args(joining)
            .env_clear()
            // What a terminal sends to the worker's group is for the worker.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { process, socket: ours })
    }

    /// False once it has ended, which none does before it has its order unless somebody kills it.
    pub fn is_waiting(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Has it start what is ordered.
    pub async fn launch(self, order: &LaunchOrder, streams: Streams) -> io::Result<Launched> {
        let Self { process, socket } = self;
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let Streams { stdin, stdout, stderr } = streams;
        // One that has ended already has said why.
        let handed = descriptors::send(&socket, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]);
        handed.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })?;
        // Whoever reads from the other ends sees when the program closes its own.
        drop((stdin, stdout, stderr));
        let (report, mut order) = UnixStream::from_std(socket)?.into_split();
        // A launcher that dies before it has read everything says nothing later.
        let _ = order.write_all(&line).await;
        Ok(Launched { process, order, report: BufReader::new(report) })
    }
}

/// A launcher that has its order. Dropping it kills what it started.
#[derive(Debug)]
pub struct Launched {
    process: Child,
    /// Closing it is the order to kill; it closes by itself if the future that holds it is dropped.
    order: OwnedWriteHalf,
    report: BufReader<OwnedReadHalf>,
}

/// What a process that is to be stopped gets before it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// Nothing.
    Nothing,
    /// SIGTERM, and so much time.
    Signal(Duration),
    /// So much time: it has been told by other means.
    Time(Duration),
}

/// How it went.
#[derive(Debug)]
pub struct Conclusion {
    /// What the launcher said, or why it said nothing.
    pub report: Result<LaunchReport, String>,
    /// Why the worker stopped it, if it did.
    pub cause: Option<StopCause>,
}

impl Launched {
    /// False once what it started has ended, or the launcher itself.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Waits until what was started has ended, or until there is a cause to stop it; then it gets its farewell, and is
    /// killed. In the end all processes that it started are gone.
    pub async fn conclude(
        self,
        cage: &Arc<dyn Cage>,
        watch: &StopWatch,
        farewell: impl FnOnce(&StopCause) -> Farewell,
    ) -> Conclusion {
        let Self { mut process, mut order, report } = self;
        let mut cause = None;
        let report = {
            let reading = read_report(report);
            tokio::pin!(reading);
            tokio::select! {
                biased;
                report = &mut reading => report,
                why = watch.cause() => {
                    let time = match farewell(&why) {
                        Farewell::Signal(time) if order.write_all(TELL_TO_END).await.is_ok() => time,
                        Farewell::Time(time) => time,
                        Farewell::Signal(_) | Farewell::Nothing => Duration::ZERO,
                    };
                    let ended = if time.is_zero() { None } else { tokio::time::timeout(time, &mut reading).await.ok() };
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
            let _ = process.start_kill();
        }
        if let Err(error) = process.wait().await {
            tracing::warn!(%error, "a launcher could not be waited for");
        }
        if let Err(error) = cage::empty(cage, EMPTY_WITHIN).await {
            tracing::error!(error = &error as &dyn std::error::Error, "a run left processes that cannot be killed");
        }
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
