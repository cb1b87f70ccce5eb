//! `forecastle`, the command line: submits requests to a frontend, follows them, and explains what became of them.
//!
//! # Map
//!
//! - [`arguments`]: what can be typed; each command's own arguments stand in its file.
//! - Commands: [`submit`], [`requests`] (list, status, watch, cancel), [`result`], [`shards`] (logs, explain), [`dead`],
//!   [`types`], [`fleet`], [`top`], [`doctor`] with its [`diagnosis`] and [`probe`]s.
//! - [`api`]: the frontend's HTTP API; [`token`]: whose request it is; [`failure`]: what went wrong, as exit status,
//!   sentence and hint.
//! - [`follow`]: a request until it ends, over [`event_stream`]s that may break; [`progress`]: bars or lines of it.
//! - [`output`]: documents, tables, colours; [`quantities`]: numbers for people; [`explanation`]: sentences of a shard.
//! - [`inputs`]: `k=v`, durations and JSON of the command line.
//!
//! # What always holds
//!
//! Standard output has the answer only, as one JSON document with `--json` (one a line for `watch`); everything else
//! goes to standard error. A submission always has an idempotency key, so trying again never makes a second request.
//! A token goes to the frontend's URL and nowhere else, and is never printed.

mod api;
mod arguments;
mod dead;
mod diagnosis;
mod doctor;
mod event_stream;
mod explanation;
mod failure;
mod fleet;
mod follow;
mod inputs;
mod output;
mod probe;
mod progress;
mod quantities;
mod requests;
mod result;
mod shards;
mod shares;
mod submit;
mod token;
mod top;
mod types;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;
use crate::output::Output;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.connection.json);
    match run(arguments, output).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(output);
            ExitCode::from(failure.exit_status())
        }
    }
}

async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    if let Command::Completions { shell } = arguments.command {
        return arguments::completions(shell, output);
    }
    let api = api::Api::new(&arguments.connection, output)?;
    match arguments.command {
        Command::Submit(submit) => submit.run(&api, output).await,
        Command::List(list) => list.run(&api, output).await,
        Command::Status { id } => requests::status(&api, output, id).await,
        Command::Watch { id } => requests::watch(&api, output, id).await,
        Command::Cancel { id } => requests::cancel(&api, output, id).await,
        Command::Result(result) => result.run(&api, output).await,
        Command::Logs { shard } => shards::logs(&api, output, shard).await,
        Command::Explain { shard } => shards::explain(&api, output, shard).await,
        Command::Dead(dead) => dead.run(&api, output).await,
        Command::Types { name } => types::run(&api, output, name.as_deref()).await,
        Command::Fleet => fleet::run(&api, output).await,
        Command::Shares(shares) => shares.run(&api, output).await,
        Command::Top(top) => top.run(&api, output).await,
        Command::Doctor(doctor) => doctor.run(&api, output).await,
        Command::Completions { .. } => Ok(()),
    }
}
