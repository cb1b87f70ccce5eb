//! The supervisor of one command.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, kill_process_group, pidfd_open, set_child_subreaper, wait,
};

use crate::enforcement::launcher::EXECUTE;
use crate::enforcement::launcher::child_signal;
use crate::enforcement::launcher::child_usage::child_usage;
use crate::enforcement::launcher::descendants;
use crate::enforcement::launcher::execute::SEPARATOR;
use crate::enforcement::launcher::protocol::{Ended, LaunchFailure, LaunchOrder, LaunchReport, LaunchStep};

/// The longest order. The kernel takes no more than a few mebibytes of arguments and environment.
const LONGEST_ORDER: u64 = 64 << 20;

/// How often orphans that have ended are waited for while the command runs.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// How long a killed process may take to die before it is called immortal.
const DEATH_WITHIN: Duration = Duration::from_secs(10);

/// Between two rounds of killing.
const KILL_EVERY: Duration = Duration::from_millis(2);

pub(crate) fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "forecastle-launch: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    child_signal::expect_children()?;
    let worker = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut line = String::new();
    let mut reader = BufReader::new((&worker).take(LONGEST_ORDER));
    reader.read_line(&mut line)?;
    // Whatever follows the order is the word to end.
    let told = !reader.buffer().is_empty();
    let order: LaunchOrder = serde_json::from_str(&line).map_err(io::Error::other)?;
    let report = match Supervisor::start(&order, &worker) {
        Ok(supervisor) => LaunchReport::Ended(supervisor.run(told)?),
        Err(failure) => {
            // The process that failed is waited for; it left nobody behind.
            reap(None)?;
            LaunchReport::Failed(failure)
        }
    };
    let mut text = serde_json::to_vec(&report).map_err(io::Error::other)?;
    text.push(b'\n');
    (&worker).write_all(&text)
}

struct Supervisor<'a> {
    worker: &'a UnixStream,
    command: Pid,
    /// Readable once the command has ended.
    handle: OwnedFd,
}

impl<'a> Supervisor<'a> {
    /// Returns once the command's program has been loaded.
    fn start(order: &LaunchOrder, worker: &'a UnixStream) -> Result<Self, LaunchFailure> {
        let prepare =
            |what: &'static str| move |error: io::Error| LaunchFailure::new(LaunchStep::Prepare, what, &error);
        // What the command leaves behind becomes a child of this process, however often it forks.
        set_child_subreaper(Some(getpid())).map_err(|error| prepare("cannot adopt processes")(error.into()))?;
        let (mut word, sender) = UnixStream::pair().map_err(prepare("cannot make a socket"))?;
        let child = Command::new("/proc/self/exe")
            .arg(EXECUTE)
            .args(&order.joining)
            .arg(SEPARATOR)
            .args(&order.argv)
            .env_clear()
            .envs(&order.environment)
            .current_dir(&order.directory)
            .stdin(Stdio::from(OwnedFd::from(sender)))
            .spawn()
            .map_err(prepare("cannot start a process"))?;
        let mut failure = Vec::new();
        // Ends when the other side is closed: by becoming the program, or by dying.
        word.read_to_end(&mut failure).map_err(prepare("cannot hear of the process"))?;
        if !failure.is_empty() {
            return Err(serde_json::from_slice(&failure)
                .map_err(io::Error::from)
                .map_err(prepare("cannot start it"))?);
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let command = pid.ok_or_else(|| prepare("cannot find it")(io::Error::from(io::ErrorKind::InvalidData)))?;
        let handle = pidfd_open(command, PidfdFlags::empty())
            .map_err(|error| prepare("cannot watch it (Linux 5.3 is needed)")(error.into()))?;
        Ok(Self { worker, command, handle })
    }

    fn run(self, told: bool) -> io::Result<Ended> {
        let (status, told_to_end) = self.wait(told)?;
        let before = Instant::now();
        let mut left_behind = 0;
        let immortal = loop {
            // Everything that is left, as long as anything is.
            match reap(None)? {
                Reaped::NoneLeft => break 0,
                Reaped::SomeLeft(_) => {}
            }
            let killed = descendants::kill_all()?;
            left_behind = killed.max(left_behind);
            if before.elapsed() > DEATH_WITHIN {
                break killed;
            }
            std::thread::sleep(KILL_EVERY);
        };
        Ok(Ended {
            exit_code: status.and_then(WaitStatus::exit_status),
            signal: status.and_then(WaitStatus::terminating_signal),
            usage: child_usage()?,
            left_behind,
            immortal,
            told_to_end,
        })
    }

    /// Waits for the command; tells it to end when the worker says so, and kills everything once the worker closes the
    /// socket or is gone. `None` if the command does not even die of that. Answers also whether it was told.
    fn wait(&self, told: bool) -> io::Result<(Option<WaitStatus>, bool)> {
        let mut killing_since: Option<Instant> = None;
        let (mut to_tell, mut told) = (told, false);
        let mut has_ended = false;
        loop {
            match reap(Some(self.command))? {
                Reaped::SomeLeft(Some(status)) => return Ok((Some(status), told)),
                // A debugger that is attached keeps the end to itself until it lets go.
                Reaped::SomeLeft(None) if has_ended => std::thread::sleep(KILL_EVERY),
                Reaped::SomeLeft(None) => {}
                // Nobody else can have waited for it.
                Reaped::NoneLeft => return Err(io::Error::other("the command is gone without a trace")),
            }
            if let Some(since) = killing_since {
                if since.elapsed() > DEATH_WITHIN {
                    return Ok((None, told));
                }
                descendants::kill_all()?;
            }
            if std::mem::take(&mut to_tell) {
                // It leads a group of its own. One that is gone is met by the next round.
                let _ = kill_process_group(self.command, Signal::TERM);
                told = true;
            }
            let pause = if killing_since.is_some() { KILL_EVERY } else { REAP_EVERY };
            let pause = Timespec::try_from(pause).map_err(io::Error::other)?;
            let mut watched = vec![PollFd::new(&self.handle, PollFlags::IN)];
            if killing_since.is_none() {
                watched.push(PollFd::new(self.worker, PollFlags::IN | PollFlags::RDHUP));
            }
            match poll(&mut watched, Some(&pause)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            has_ended = !watched[0].revents().is_empty();
            if watched.get(1).is_some_and(|worker| !worker.revents().is_empty()) {
                // What was said before the end is read before it.
                match (&mut &*self.worker).read(&mut [0; 64]) {
                    Ok(said) if said > 0 => to_tell = !told,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(_) | Err(_) => killing_since = Some(Instant::now()),
                }
            }
        }
    }
}

enum Reaped {
    /// There are no children any more.
    NoneLeft,
    /// There are; with the status of the one that was asked for, if that has ended.
    SomeLeft(Option<WaitStatus>),
}

/// Waits for all children that have ended, without blocking, until the one that is asked for is met.
fn reap(wanted: Option<Pid>) -> io::Result<Reaped> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == wanted => return Ok(Reaped::SomeLeft(Some(status))),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return Ok(Reaped::SomeLeft(None)),
            Err(rustix::io::Errno::CHILD) => return Ok(Reaped::NoneLeft),
            Err(error) => return Err(error.into()),
        }
    }
}
