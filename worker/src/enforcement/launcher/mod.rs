//! The launcher: the small program `forecastle-launch` between the worker and a command.
//!
//! It runs twice for each command:
//!
//! - [`supervise`]: outside the cage. It starts the command, adopts whatever the command leaves behind (it is a *child
//!   subreaper*), kills all of it when the command has ended, when it is told to, or when the worker dies, and says at
//!   last what the kernel knows of the ended processes.
//! - [`execute`]: the command's own process. It gives up core dumps and the session, joins the cage, waits for the order
//!   and becomes the command.
//!
//! [`protocol`] is what worker and supervisor tell each other over the supervisor's standard input, a socket: the
//! command's standard input, output and error as open files ([`descriptors`]); one line of JSON each way, and between
//! them perhaps the word to tell the command to end. The end of the worker's half is the order to kill; it comes also if
//! the worker is killed. Both can be started long before the order comes: joining a cage takes the kernel milliseconds.
//!
//! # Why a program of its own
//!
//! A process that forks from the worker carries the worker's size: Linux keeps the maximum of a process's memory across
//! `execve`, so every command would seem to have used what the worker uses. The supervisor is small. And no code has
//! to run between fork and exec in a process with threads.

pub mod descriptors;
pub mod execute;
pub mod protocol;
pub mod supervise;

mod child_signal;
mod child_usage;
mod descendants;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

/// The argument of the outer run.
pub(crate) const SUPERVISE: &str = "supervise";

/// The argument of the inner run.
pub(crate) const EXECUTE: &str = "execute";

/// The exit code for wrong usage: `EX_USAGE`.
const USAGE: u8 = 64;

/// What `forecastle-launch` does; `arguments` are those after the program's name.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match arguments.next().as_ref().and_then(|word| word.to_str()) {
        Some(SUPERVISE) => supervise::main(arguments),
        Some(EXECUTE) => execute::main(arguments),
        _ => {
            let _ = writeln!(std::io::stderr(), "forecastle-launch is started by forecastle-worker, not by people");
            ExitCode::from(USAGE)
        }
    }
}
