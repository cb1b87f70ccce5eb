//! `forecastle-frontend`: the program.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use forecastle_frontend::app;
use forecastle_frontend::ledger::sqlite::backup_file;
use forecastle_frontend::options::FrontendOptions;
use forecastle_service::shutdown::GAVE_UP;
use forecastle_service::{Shutdown, Sources, configuration, logs};

/// Takes requests, breaks them into shards, forecasts what each will need, and releases them to the fleet.
///
/// The configuration comes from defaults, then the file, then the environment (FORECASTLE__SECTION__KEY), then --set.
///
/// The first SIGTERM or SIGINT drains: nothing new is taken, and what is being committed or delivered is finished. The
/// second does not wait for that, the third ends the process; what is durable stays so.
///
/// Exit status:
///   0  after a drain
///   1  a failure
///   2  wrong usage
///   3  another frontend has the ledger or the virtual host
///   4  it was told three times, and ended at once
///
/// Example:
///   forecastle-frontend --config frontend.toml --set http.listen=127.0.0.1:7070
#[derive(Parser)]
#[command(name = "forecastle-frontend", version, verbatim_doc_comment)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, short, global = true, value_name = "FILE", env = "FORECASTLE_FRONTEND_CONFIG")]
    config: Option<PathBuf>,
    /// One setting, over all others: `--set sweeper.grace=10s`. May be repeated.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the frontend (the default).
    Run,
    /// Checks the configuration and the catalogue, names all that is wrong, and exits.
    Check,
    /// Prints the configuration as it would be used; secrets are hidden.
    Configuration,
    /// Writes a consistent copy of the ledger to a new file, also while a frontend runs.
    Backup {
        /// The file to write; it must not exist.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
}

/// The exit status that tells a supervisor to leave it at that: starting again would end the same way.
const ANOTHER_IS_ACTIVE: u8 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last words of a program go to its standard error")]
            {
                eprintln!("forecastle-frontend: {error:#}");
            }
            if app::another_is_active(&error) { ExitCode::from(ANOTHER_IS_ACTIVE) } else { ExitCode::FAILURE }
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut sources = Sources::environment();
    if let Some(path) = arguments.config {
        sources = sources.file(path);
    }
    let options: FrontendOptions = configuration::load(sources.set(arguments.set))?;
    match arguments.command {
        None | Some(Command::Run) => {
            logs::install(&options.logs)?;
            let shutdown = Shutdown::on_signals()?;
            tokio::select! {
                biased;
                ended = app::run(options, &shutdown) => ended,
                // Nothing is waited for, not even what blocks: the ledger and the broker have what is durable.
                () = shutdown.giving_up() => std::process::exit(GAVE_UP.into()),
            }
        }
        Some(Command::Check) => app::check(&options),
        Some(Command::Configuration) => {
            match writeln!(std::io::stdout(), "{}", toml::to_string_pretty(&options)?) {
                // Whoever reads it has seen enough: `… configuration | head`.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                written => Ok(written?),
            }
        }
        Some(Command::Backup { to }) => Ok(backup_file(&options.data.directory, &to)?),
    }
}
