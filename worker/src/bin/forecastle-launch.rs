//! The small program between a worker and a command. It is found beside the worker's own.

use std::process::ExitCode;

use forecastle_worker::enforcement::launcher;

fn main() -> ExitCode {
    launcher::main(std::env::args_os().skip(1))
}
