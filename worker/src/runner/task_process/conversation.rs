//! The worker's end of the conversation with the process of a task.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use forecastle_resources::ResourceVector;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::runner::answer::Answer;
use crate::runner::task_process::protocol::{FromTask, TaskOrder, ToTask};

/// The longest message: a result of 64 KiB, or an error that is much too long.
const LONGEST: u64 = 8 << 20;

/// The worker's end.
#[derive(Debug)]
pub(crate) struct Conversation {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Conversation {
    /// A new one, and the other end: the process's standard input.
    pub(crate) fn open() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(ours)?.into_split();
        Ok((Self { read: BufReader::new(read), write }, theirs.into()))
    }

    /// Waits until the process is ready.
    pub(crate) async fn ready(&mut self) -> Result<(), String> {
        match hear(&mut self.read).await? {
            Some(FromTask::Ready) => Ok(()),
            Some(FromTask::Ended(_)) => Err("it answers before it was asked".to_owned()),
            None => Err("it ended before it was ready".to_owned()),
        }
    }

    /// True as long as the process waits for what it is to run, and says nothing.
    pub(crate) fn is_waiting(&self) -> bool {
        let socket: &UnixStream = self.write.as_ref();
        recv(socket, &mut [0u8], RecvFlags::PEEK | RecvFlags::DONTWAIT) == Err(Errno::AGAIN)
    }

    /// Has the process run this and waits for its answer, for as long as it takes; passes on what changes meanwhile.
    /// `None` if it ended without one.
    pub(crate) async fn run(
        self,
        order: TaskOrder,
        mut allocation: watch::Receiver<ResourceVector>,
        cancellation: CancellationToken,
    ) -> Result<Option<Answer>, String> {
        let Self { read, mut write } = self;
        if !say(&mut write, &ToTask::Run(Box::new(order))).await? {
            return Ok(None);
        }
        let mut answer = std::pin::pin!(hear(read));
        let mut is_cancelled = false;
        loop {
            let message = tokio::select! {
                answer = &mut answer => return match answer? {
                    Some(FromTask::Ended(answer)) => Ok(Some(answer)),
                    Some(FromTask::Ready) => Err("it says twice that it is ready".to_owned()),
                    None => Ok(None),
                },
                Ok(()) = allocation.changed() => ToTask::Allocation(allocation.borrow_and_update().clone()),
                () = cancellation.cancelled(), if !is_cancelled => {
                    is_cancelled = true;
                    ToTask::Cancel
                }
            };
            // One that does not listen any more has ended, or answers at once.
            say(&mut write, &message).await?;
        }
    }
}

/// `None` once the process has closed its end.
async fn hear(read: impl tokio::io::AsyncBufRead + Unpin) -> Result<Option<FromTask>, String> {
    let mut line = Vec::new();
    match read.take(LONGEST).read_until(b'\n', &mut line).await {
        Ok(0) => Ok(None),
        Ok(_) => serde_json::from_slice(&line).map(Some).map_err(|error| format!("its answer makes no sense: {error}")),
        // It was killed with something unread.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// False if nobody listens.
async fn say(write: &mut OwnedWriteHalf, message: &ToTask) -> Result<bool, String> {
    let mut line = serde_json::to_vec(message).map_err(|error| error.to_string())?;
    line.push(b'\n');
    Ok(write.write_all(&line).await.is_ok())
}
