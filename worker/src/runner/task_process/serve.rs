//! Inside the process of a task.

use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use forecastle_task::{Checkpoint, Context, ContextParts, Registry};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::runner::answer::Answer;
use crate::runner::task_process::protocol::{FromTask, TaskOrder, ToTask, VARIABLE};

/// What operators see of it in lists of processes.
const PROCESS_NAME: &str = "forecastle-task";

/// True in a process that a worker has started to run a task apart. [`WorkerBuilder::run`](crate::WorkerBuilder::run)
/// heeds it by itself. A program that does much before that, or cannot do it without its configuration, asks first:
/// little of the worker's environment is there.
pub fn is_asked() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Runs one of `tasks`, as the worker says that started this process, and ends the process.
///
/// Fails only if there is no such worker.
pub async fn serve(tasks: &Registry) -> anyhow::Result<std::convert::Infallible> {
    let socket = take_socket().with_context(|| {
        format!("{VARIABLE} is set, but no worker has started this program: unset it to start a worker")
    })?;
    let code = match converse(tasks, socket).await {
        Ok(()) => 0,
        Err(error) => {
            // Its standard error is the run's log.
            let _ = writeln!(std::io::stderr(), "{PROCESS_NAME}: {error:#}");
            1
        }
    };
    let _ = std::io::stdout().flush();
    // Blocking work of a task that was told to end is not waited for.
    std::process::exit(code)
}

/// Standard input, which then is empty: what the task starts must not talk to the worker.
fn take_socket() -> anyhow::Result<UnixStream> {
    let socket = StdUnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    socket.peer_addr().context("standard input is no socket")?;
    let nothing = OwnedFd::from(std::fs::File::open("/dev/null")?);
    rustix::stdio::dup2_stdin(&nothing)?;
    socket.set_nonblocking(true)?;
    // A name for people; without one it is that of the program.
    let _ = std::fs::write("/proc/self/comm", PROCESS_NAME);
    Ok(UnixStream::from_std(socket)?)
}

async fn converse(tasks: &Registry, socket: UnixStream) -> anyhow::Result<()> {
    let (read, mut write) = socket.into_split();
    let mut messages = BufReader::new(read).lines();
    write.write_all(&line(&FromTask::Ready)?).await?;
    let order = match next(&mut messages).await? {
        Some(ToTask::Run(order)) => order,
        Some(_) => anyhow::bail!("the worker does not say what to run"),
        // It is not needed any more.
        None => return Ok(()),
    };
    let Some(answer) = run(tasks, *order, messages).await? else { return Ok(()) };
    write.write_all(&line(&FromTask::Ended(answer))?).await?;
    Ok(())
}

fn line(message: &FromTask) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

async fn next(messages: &mut Lines<BufReader<OwnedReadHalf>>) -> anyhow::Result<Option<ToTask>> {
    let Some(line) = messages.next_line().await? else { return Ok(None) };
    serde_json::from_str(&line).context("the worker's message makes no sense: is it of another version?").map(Some)
}

/// `None` if the worker is gone.
async fn run(
    tasks: &Registry,
    order: TaskOrder,
    mut messages: Lines<BufReader<OwnedReadHalf>>,
) -> anyhow::Result<Option<Answer>> {
    let Some(task) = tasks.get(&order.task) else {
        let why = format!("the program that serves tasks has no task `{}`: register it before `run`", order.task);
        return Ok(Some(Answer::Permanent(why)));
    };
    std::env::set_current_dir(&order.scratch).context("cannot enter the scratch folder")?;
    let (allocation, cancellation) = (watch::Sender::new(order.allocation), CancellationToken::new());
    let checkpoint = given(order.checkpoint.as_deref());
    let mut kept = checkpoint.watch_kept();
    let parts = ContextParts {
        run_id: order.run_id,
        shard_id: order.shard_id,
        attempt: order.attempt,
        tenant: order.tenant,
        items: order.items,
        upstream: order.upstream,
        output: order.output,
        scratch: order.scratch,
        allocation: allocation.subscribe().into(),
        cancellation: cancellation.clone(),
        checkpoint,
        ..ContextParts::default()
    };
    let (context, parameters) = (Context::new(parts), order.parameters);
    let mut task = tokio::spawn(async move { task.run(parameters, &context).await });
    loop {
        tokio::select! {
            biased;
            ended = &mut task => {
                if kept.has_changed().unwrap_or_default() {
                    keep(&mut kept, &order.keep_checkpoint_in).await;
                }
                return Ok(Some(Answer::of(ended)));
            }
            message = next(&mut messages) => match message? {
                Some(ToTask::Allocation(vector)) => drop(allocation.send_replace(vector)),
                Some(ToTask::Cancel) => cancellation.cancel(),
                Some(ToTask::Run(_)) => anyhow::bail!("the worker asks for a second run"),
                None => return Ok(None),
            },
            Ok(()) = kept.changed() => keep(&mut kept, &order.keep_checkpoint_in).await,
        }
    }
}

/// What an earlier attempt left. A task that cannot have it begins anew.
fn given(path: Option<&Path>) -> Checkpoint {
    let Some(path) = path else { return Checkpoint::default() };
    match Checkpoint::read(path) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{PROCESS_NAME}: the checkpoint cannot be read: {error}");
            Checkpoint::default()
        }
    }
}

/// Writes what the task keeps now.
async fn keep(kept: &mut watch::Receiver<Option<Vec<u8>>>, file: &Path) {
    let Some(bytes) = kept.borrow_and_update().clone() else { return };
    let (file, mut next) = (file.to_owned(), file.to_owned().into_os_string());
    next.push(".next");
    let next = PathBuf::from(next);
    let written = tokio::task::spawn_blocking(move || {
        std::fs::write(&next, bytes)?;
        std::fs::rename(&next, file)
    });
    let why = match written.await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    let _ = writeln!(std::io::stderr(), "{PROCESS_NAME}: a checkpoint cannot be written: {why}");
}
