//! The supervisor of one command.

use std::ffi::OsString;
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
use crate::enforcement::launcher::descriptors;
use crate::enforcement::launcher::protocol::{Ended, LaunchFailure, LaunchReport, LaunchStep};

/// The longest order. The kernel takes no more than a few mebibytes of arguments and environment.
pub(crate) const LONGEST_ORDER: u64 = 64 << 20;

/// How often orphans that have ended are waited for while the command runs.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// How long a killed process may take to die before it is called immortal.
const DEATH_WITHIN: Duration = Duration::from_secs(10);

/// Between two rounds of killing.
const KILL_EVERY: Duration = Duration::from_millis(2);

/// `supervise FILE…`: the files are those that the command's process writes `0` to.
pub(crate) fn main(joining: impl Iterator<Item = OsString>) -> ExitCode {
    match serve(joining) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "forecastle-launch: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(joining: impl Iterator<Item = OsString>) -> io::Result<()> {
    child_signal::expect_children()?;
    let worker = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let report = match Supervisor::start(joining, &worker) {
        Ok(supervisor) => match supervisor.order()? {
            Ordered::Started { told } => Some(LaunchReport::Ended(supervisor.run(told)?)),
            Ordered::Failed(failure) => Some(LaunchReport::Failed(failure)),
            Ordered::Nothing => None,
        },
        Err(failure) => Some(LaunchReport::Failed(failure)),
    };
    // Whatever was not reached.
    end_all(Instant::now())?;
    let Some(report) = report else { return Ok(()) };
    let mut text = serde_json::to_vec(&report).map_err(io::Error::other)?;
    text.push(b'\n');
    match (&worker).write_all(&text) {
        // The worker did not wait for it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

struct Supervisor<'a> {
    worker: &'a UnixStream,
    command: Pid,
    /// Readable once the command has ended.
    handle: OwnedFd,
    /// To the command's process, until that becomes the program.
    word: UnixStream,
}

/// What has come of the wait for an order.
enum Ordered {
    /// The program has been loaded; `told` if it is to end already.
    Started { told: bool },
    /// It could not be.
    Failed(LaunchFailure),
    /// Nobody wants anything to be started any more.
    Nothing,
}

impl<'a> Supervisor<'a> {
    /// Starts the process that will be the command's, and has it join.
    fn start(joining: impl Iterator<Item = OsString>, worker: &'a UnixStream) -> Result<Self, LaunchFailure> {
        // What the command leaves behind becomes a child of this process, however often it forks.
        set_child_subreaper(Some(getpid())).map_err(|error| prepare("cannot adopt processes")(error.into()))?;
        let (word, sender) = UnixStream::pair().map_err(prepare("cannot make a socket"))?;
        let child = Command::new("/proc/self/exe")
            .arg(EXECUTE)
            .args(joining)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(sender)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(prepare("cannot start a process"))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let command = pid.ok_or_else(|| prepare("cannot find it")(io::Error::from(io::ErrorKind::InvalidData)))?;
        let handle = pidfd_open(command, PidfdFlags::empty())
            .map_err(|error| prepare("cannot watch it (Linux 5.3 is needed)")(error.into()))?;
        Ok(Self { worker, command, handle, word })
    }

    /// Waits for the order and hands it on. Returns once the program has been loaded.
    fn order(&self) -> io::Result<Ordered> {
        if self.wait_for_order()? {
            let Some(streams) = descriptors::receive::<3>(self.worker)? else { return Ok(Ordered::Nothing) };
            let mut line = Vec::new();
            let mut reader = BufReader::new(self.worker.take(LONGEST_ORDER));
            if reader.read_until(b'\n', &mut line)? == 0 {
                return Ok(Ordered::Nothing);
            }
            // Whatever follows the order is the word to end.
            let told = !reader.buffer().is_empty();
            let [stdin, stdout, stderr] = &streams;
            let handed = descriptors::send(&self.word, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
                .and_then(|()| (&self.word).write_all(&line));
            // Whoever reads from the other ends sees when the command closes its own.
            drop(streams);
            let failure = self.failure();
            return Ok(match (failure, handed) {
                (Some(failure), _) => Ordered::Failed(failure),
                (None, Ok(())) => Ordered::Started { told },
                (None, Err(error)) => Ordered::Failed(prepare("cannot hand over the order")(error)),
            });
        }
        let died = || prepare("its process ended before it was told what to do")(io::ErrorKind::BrokenPipe.into());
        Ok(Ordered::Failed(self.failure().unwrap_or_else(died)))
    }

    /// False if the command's process ends before there is an order.
    fn wait_for_order(&self) -> io::Result<bool> {
        loop {
            let mut watched =
                [PollFd::new(self.worker, PollFlags::IN | PollFlags::RDHUP), PollFd::new(&self.handle, PollFlags::IN)];
            match poll(&mut watched, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) if watched[0].revents().is_empty() => return Ok(false),
                Ok(_) => return Ok(true),
            }
        }
    }

    /// What the command's process says went wrong. Ends when that closes its side: by becoming the program, or by dying.
    fn failure(&self) -> Option<LaunchFailure> {
        let mut said = Vec::new();
        if let Err(error) = (&self.word).read_to_end(&mut said) {
            return Some(prepare("cannot hear of the process")(error));
        }
        if said.is_empty() {
            return None;
        }
        Some(serde_json::from_slice(&said).unwrap_or_else(|error| prepare("cannot start it")(error.into())))
    }

    fn run(self, told: bool) -> io::Result<Ended> {
        let (status, told_to_end) = self.wait(told)?;
        let (left_behind, immortal) = end_all(Instant::now())?;
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

fn prepare(what: &'static str) -> impl Fn(io::Error) -> LaunchFailure {
    move |error| LaunchFailure::new(LaunchStep::Prepare, what, &error)
}

/// Kills everything that is left, as long as anything is; answers how many processes there were, and how many are still
/// there.
fn end_all(since: Instant) -> io::Result<(u32, u32)> {
    let mut left_behind = 0;
    loop {
        match reap(None)? {
            Reaped::NoneLeft => return Ok((left_behind, 0)),
            Reaped::SomeLeft(_) => {}
        }
        let killed = descendants::kill_all()?;
        left_behind = killed.max(left_behind);
        if since.elapsed() > DEATH_WITHIN {
            return Ok((left_behind, killed));
        }
        std::thread::sleep(KILL_EVERY);
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
