//! The command's own process, until it becomes the command.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use rustix::process::{Resource, Rlimit, setrlimit, setsid};

use crate::enforcement::launcher::descriptors;
use crate::enforcement::launcher::protocol::{LaunchFailure, LaunchOrder, LaunchStep};
use crate::enforcement::launcher::supervise::LONGEST_ORDER;

/// What a shell answers if it cannot run a command; seen by nobody, since the failure itself is reported.
const NOT_STARTED: u8 = 127;

/// Raised so that a machine out of memory kills a run before it kills the worker.
const OOM_SCORE: &str = "500";

/// `execute FILE…`. Standard input is a socket to the supervisor. From it come the order, whenever that is, and what the
/// program is to have as its standard input, output and error; a failure is written there; success closes it unwritten,
/// since it does not survive becoming the program.
pub(crate) fn main(joining: impl Iterator<Item = OsString>) -> ExitCode {
    // Duplicates are closed on exec.
    let Ok(supervisor) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::from(NOT_STARTED) };
    let supervisor = UnixStream::from(supervisor);
    if let Err(failure) = join(joining).and_then(|()| become_program(&supervisor)) {
        // Without a supervisor there is nobody to tell.
        let _ = serde_json::to_vec(&failure).map(|text| (&supervisor).write_all(&text));
    }
    ExitCode::from(NOT_STARTED)
}

fn prepare(what: impl Display, error: &io::Error) -> LaunchFailure {
    LaunchFailure::new(LaunchStep::Prepare, what, error)
}

fn join(joining: impl Iterator<Item = OsString>) -> Result<(), LaunchFailure> {
    // A session of its own: no terminal, and signals to its group reach nobody else.
    setsid().map_err(|error| prepare("cannot make a session", &error.into()))?;
    // What was a run's memory must not fill the worker's disk.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|error| prepare("cannot do without core dumps", &error.into()))?;
    // A kernel that does not let it has another idea of whom to kill: no reason not to run.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    for file in joining.map(PathBuf::from) {
        // Never creates it: a cage that is gone must not become a plain file.
        fs::OpenOptions::new().write(true).open(&file).and_then(|mut file| file.write_all(b"0")).map_err(|error| {
            LaunchFailure::new(LaunchStep::Join, format_args!("cannot join {}", file.display()), &error)
        })?;
    }
    Ok(())
}

/// Returns only if it cannot, or if there is nothing to become.
fn become_program(supervisor: &UnixStream) -> Result<(), LaunchFailure> {
    let streams = descriptors::receive::<3>(supervisor).map_err(|error| prepare("cannot take its streams", &error))?;
    let Some([stdin, stdout, stderr]) = streams else { return Ok(()) };
    let mut line = Vec::new();
    let order = BufReader::new(supervisor.take(LONGEST_ORDER)).read_until(b'\n', &mut line);
    let order: io::Result<LaunchOrder> = order.and_then(|_| serde_json::from_slice(&line).map_err(io::Error::from));
    let LaunchOrder { argv, environment, directory } =
        order.map_err(|error| prepare("cannot read its order", &error))?;
    let entered = std::env::set_current_dir(&directory);
    entered.map_err(|error| prepare(format_args!("cannot enter {}", directory.display()), &error))?;
    let Some((program, arguments)) = argv.split_first() else {
        return Err(prepare("nothing to run", &io::Error::from(io::ErrorKind::InvalidInput)));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment).stdin(stdin).stdout(stdout).stderr(stderr);
    let error = command.exec();
    Err(LaunchFailure::new(LaunchStep::Execute, format_args!("cannot run {program}"), &error))
}
