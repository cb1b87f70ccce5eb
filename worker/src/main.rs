//! `forecastle-worker`: the program.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use forecastle_admission::Shares;
use forecastle_service::shutdown::GAVE_UP;
use forecastle_service::{Shutdown, Sources, configuration, logs};
use forecastle_worker::capacity_argument::CapacityArgument;
use forecastle_worker::runner::task_process;
use forecastle_worker::{LeftUnconfirmed, Worker, WorkerOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The exit status of a worker that left runs unconfirmed.
const LEFT_UNCONFIRMED: u8 = 3;

/// Takes shards from RabbitMQ when what they reserve fits into what is free here, runs them within it, and reports what
/// they really used.
///
/// The configuration comes from defaults, then the file, then the environment (FORECASTLE__SECTION__KEY), then the
/// command line. Sections: catalogue, capacity, shares, claiming, broker, input, store, scratch, enforcement,
/// adjustment, runner, preallocation, report, drain, admin, logs.
///
/// The first SIGTERM or SIGINT drains: no more shards are taken, and what runs has `drain.grace` (30s) to end; what does
/// not is asked for a checkpoint, stopped, and runs again elsewhere. The second leaves no grace. The third ends the
/// worker and all that it runs at once; the ledger then misses it and orders its shards again.
///
/// SIGHUP reads the configuration again and gives priorities the shares that stand there now; the rest of it needs a
/// restart.
///
/// Exit status:
///   0  after a drain: all that ran has ended or was handed on, and the broker confirmed it
///   1  it could not start, the configuration is wrong, or it had to stop by itself
///   2  wrong usage
///   3  after a drain: the broker did not confirm in time what became of some runs, which count as lost
///   4  it was told three times, and ended at once
///
/// Examples:
///   forecastle-worker --catalogue catalogue.toml --set 'input.allowed_roots=["/data"]' --set store.root=/shared/store
///   forecastle-worker --config worker.toml --capacity cpu=2,memory=4GiB
///   forecastle-worker --config worker.toml --set 'shares.urgent.guaranteed={ cpu = "1", memory = "1GiB" }' --check
#[expect(clippy::doc_link_with_quotes, reason = "it is TOML in the help, not a link")]
#[derive(Parser)]
#[command(name = "forecastle-worker", version, verbatim_doc_comment)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, short, value_name = "FILE", env = "FORECASTLE_WORKER_CONFIG")]
    config: Option<PathBuf>,
    /// One setting, over all others: `--set drain.grace=1min`. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A name for people; the machine's by default.
    #[arg(long)]
    name: Option<String>,
    /// The fleet whose shards it takes: 1 to 64 of a-z, 0-9 and -.
    #[arg(long)]
    fleet: Option<String>,
    /// What shards may reserve here: `cpu=1,memory=1GiB,io=100MiB/s,scratch=10GiB,gpu=1`. CPU, memory and scratch that
    /// are not named are what the machine, or this process's own cgroup, has.
    #[arg(long, value_name = "RESOURCE=AMOUNT,…")]
    capacity: Option<CapacityArgument>,
    /// The catalogue of units, the same that the frontend reads.
    #[arg(long, value_name = "FILE")]
    catalogue: Option<PathBuf>,
    /// Checks the configuration and the catalogue, names all that is wrong, and exits.
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    // Started by a worker to run a task apart: without arguments or a configuration.
    let ended = if task_process::is_asked() {
        Worker::builder(WorkerOptions::default()).run().await.map(|()| ExitCode::SUCCESS)
    } else {
        run(Arguments::parse()).await
    };
    match ended {
        Ok(status) => status,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last words of a program go to its standard error")]
            {
                eprintln!("forecastle-worker: {error:#}");
            }
            if error.is::<LeftUnconfirmed>() { ExitCode::from(LEFT_UNCONFIRMED) } else { ExitCode::FAILURE }
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut sources = Sources::environment();
    if let Some(path) = arguments.config {
        sources = sources.file(path);
    }
    let sources = sources
        .set(arguments.set)
        .flag("--name", "name", arguments.name)
        .flag("--fleet", "fleet", arguments.fleet)
        .flag("--capacity", "capacity", arguments.capacity)
        .flag("--catalogue", "catalogue.path", arguments.catalogue.as_ref().map(|path| path.display()));
    let options: WorkerOptions = configuration::load(sources.clone())?;
    if arguments.check {
        return Worker::builder(options).check().map(|()| ExitCode::SUCCESS);
    }
    logs::install(&options.logs)?;
    let shutdown = Shutdown::on_signals()?;
    let shares = reload_shares(sources, &options)?;
    let worker = tokio::spawn(Worker::builder(options).shutdown(shutdown.clone()).shares(shares).run());
    tokio::select! {
        biased;
        ended = worker => ended?.map(|()| ExitCode::SUCCESS),
        // Nothing is waited for, not even what blocks. What runs is killed by its launcher once this process is gone.
        () = shutdown.giving_up() => std::process::exit(GAVE_UP.into()),
    }
}

/// The shares of the configuration, read again at each SIGHUP. A configuration that is wrong then changes nothing.
fn reload_shares(sources: Sources, options: &WorkerOptions) -> anyhow::Result<watch::Receiver<Shares>> {
    let mut hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let (sender, shares) = watch::channel(options.shares.shares());
    tokio::spawn(async move {
        while let (Some(()), false) = (hangups.recv().await, sender.is_closed()) {
            match configuration::load::<WorkerOptions>(sources.clone()) {
                Ok(options) => drop(sender.send_replace(options.shares.shares())),
                Err(error) => tracing::error!(%error, "the configuration is wrong; shares stay as they are"),
            }
        }
    });
    Ok(shares)
}
