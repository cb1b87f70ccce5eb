//! What the processes of a run say: standard output where it is no result, and standard error.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use forecastle_resources::Bytes;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::runner::bounded_log::BoundedLog;
use crate::runner::output_store::RunFolder;

/// How long to read on from what all processes of the run should have closed.
const WITHIN: Duration = Duration::from_secs(2);

/// The logs of a run, to which all its processes append.
#[derive(Debug)]
pub struct Logs {
    stdout: Option<BoundedLog>,
    stderr: Option<BoundedLog>,
}

/// A pipe: the end that is read here, and the end for the process.
pub fn open_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(read.into())?, write.into()))
}

impl Logs {
    /// Empty ones, of at most `limit` each, beside the run's output.
    pub fn new(folder: &RunFolder, limit: Bytes) -> Self {
        let log = |name| Some(BoundedLog::new(folder.beside(name), limit));
        Self { stdout: log("stdout.log"), stderr: log("stderr.log") }
    }

    /// Reads what a process says, in the background. Standard output may be a result instead.
    #[must_use]
    pub fn follow(&mut self, stdout: Option<pipe::Receiver>, stderr: pipe::Receiver) -> Following {
        let give_up = CancellationToken::new();
        let start = |log: Option<BoundedLog>, stream| log.map(|log| tokio::spawn(log.follow(stream, give_up.clone())));
        let stdout = stdout.and_then(|stream| start(self.stdout.take(), stream));
        let stderr = start(self.stderr.take(), stderr);
        Following { stdout, stderr, give_up }
    }

    /// The end of standard error.
    pub fn tail(&self) -> String {
        self.stderr.as_ref().map(BoundedLog::tail).unwrap_or_default()
    }

    /// Closes the files; the end of standard error.
    pub async fn close(mut self) -> String {
        for log in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            log.close().await;
        }
        self.tail()
    }
}

/// Logs that are being written.
#[derive(Debug)]
pub struct Following {
    stdout: Option<JoinHandle<BoundedLog>>,
    stderr: Option<JoinHandle<BoundedLog>>,
    give_up: CancellationToken,
}

impl Following {
    /// Reads to the end, now that the process has ended.
    pub async fn finish(self, logs: &mut Logs) {
        let Self { stdout, stderr, give_up } = self;
        let limit = tokio::spawn(async move {
            tokio::time::sleep(WITHIN).await;
            give_up.cancel();
        });
        for (task, log) in [(stdout, &mut logs.stdout), (stderr, &mut logs.stderr)] {
            if let Some(task) = task {
                *log = task.await.inspect_err(|error| tracing::error!(%error, "reading a log failed")).ok();
            }
        }
        limit.abort();
    }
}
