//! The command's own process, until it becomes the command.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Resource, Rlimit, setrlimit, setsid};

use crate::enforcement::launcher::protocol::{LaunchFailure, LaunchStep};

/// Separates the files to join from the program.
pub(crate) const SEPARATOR: &str = "--";

/// What a shell answers if it cannot run a command; seen by nobody, since the failure itself is reported.
const NOT_STARTED: u8 = 127;

/// Raised so that a machine out of memory kills a run before it kills the worker.
const OOM_SCORE: &str = "500";

/// `execute FILE… -- PROGRAM ARGUMENT…`. Standard input is a socket to the supervisor: a failure is written there;
/// success closes it unwritten, since it does not survive becoming the program.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    // Duplicates are closed on exec.
    let Ok(supervisor) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::from(NOT_STARTED) };
    let failure = become_program(arguments);
    // Without a supervisor there is nobody to tell.
    let _ = serde_json::to_vec(&failure).map(|text| UnixStream::from(supervisor).write_all(&text));
    ExitCode::from(NOT_STARTED)
}

fn become_program(mut arguments: impl Iterator<Item = OsString>) -> LaunchFailure {
    let prepare = |what: &str, error: &io::Error| LaunchFailure::new(LaunchStep::Prepare, what, error);
    // A session of its own: no terminal, and signals to its group reach nobody else.
    if let Err(error) = setsid() {
        return prepare("cannot make a session", &error.into());
    }
    // What was a run's memory must not fill the worker's disk.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        return prepare("cannot do without core dumps", &error.into());
    }
    // A kernel that does not let it has another idea of whom to kill: no reason not to run.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    for file in arguments.by_ref().take_while(|argument| argument != SEPARATOR) {
        // Never creates it: a cage that is gone must not become a plain file.
        if let Err(error) = fs::OpenOptions::new().write(true).open(&file).and_then(|mut file| file.write_all(b"0")) {
            return LaunchFailure::new(LaunchStep::Join, format_args!("cannot join {}", file.display()), &error);
        }
    }
    let Some(program) = arguments.next() else {
        return prepare("nothing to run", &io::Error::from(io::ErrorKind::InvalidInput));
    };
    let error = Command::new(&program).args(arguments).stdin(Stdio::null()).exec();
    LaunchFailure::new(LaunchStep::Execute, format_args!("cannot run {}", program.display()), &error)
}
