//! `forecast-evaluate`: judges the sizing of memory on recorded runs.

mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use forecastle_forecast::ProfileForecaster;
use forecastle_forecast::evaluation::score::{Scores, Shown};
use forecastle_forecast::evaluation::{ForecasterSizer, Run, Sizer, baselines, protocol};
use serde::Serialize;

/// The name of this project's own forecaster among the methods.
const OWN: &str = "forecastle";

/// Judges how well memory is sized, on recorded runs: Forecastle's forecaster beside sizers from the literature.
///
/// An allocation is capped at the preset that the run's owner chose. A success wastes what it held and did not need; a
/// killed attempt wastes all that it held, for the whole time of the run; after the last rung of a ladder the preset is
/// given. 1 GB·h is 10⁹ bytes held for an hour. MAQ is used / (used + wasted).
///
/// Files are CSV, plain or gzipped (.gz), with columns in any order; columns that are not named here are ignored.
///
/// Examples:
///   forecast-evaluate replay --history monday.csv.gz tuesday.csv.gz
///   forecast-evaluate split --order runs.order.csv.gz --seed 1996 runs.csv.gz --json
#[derive(Debug, Parser)]
#[command(name = "forecast-evaluate", version, verbatim_doc_comment)]
struct Arguments {
    #[command(subcommand)]
    protocol: Protocol,
}

#[derive(Debug, Subcommand)]
enum Protocol {
    /// Sizes runs as they happened: each when it starts, with what had ended by then.
    ///
    /// Columns: process, status, start, complete, realtime, memory, peak_rss, input_size. Runs count that are COMPLETED
    /// and have all of them, more than zero. Without history the sizers begin cold.
    #[command(verbatim_doc_comment)]
    Replay {
        /// Runs to learn from before.
        #[arg(long, value_name = "FILE")]
        history: Vec<PathBuf>,
        /// Runs to size.
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Sizes runs one after the other, each learnt before the next, in an order of its own for each seed.
    ///
    /// Columns: process, realtime, memory, rss, rchar (in place of the input's size). The order's columns: seed, role
    /// (history, or anything else for runs to size), position, row (of the file, from 0).
    #[command(verbatim_doc_comment)]
    Split {
        /// The order.
        #[arg(long, value_name = "FILE")]
        order: PathBuf,
        /// Which of its orders.
        #[arg(long, value_name = "N")]
        seed: u64,
        /// The runs.
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
struct Output {
    /// Only these methods; all by default. May be repeated.
    #[arg(long, value_name = "NAME", value_parser = [OWN, "preset", "max10", "p95", "linear_max", "ponder", "tovar"])]
    method: Vec<String>,
    /// One JSON object, the methods its keys, instead of a table.
    #[arg(long)]
    json: bool,
}

/// What a method cost.
#[derive(Debug, Serialize)]
struct Judged {
    total: Shown,
    /// By type of task.
    types: BTreeMap<String, Shown>,
}

impl From<Scores> for Judged {
    fn from(scores: Scores) -> Self {
        let types = scores.kinds.into_iter().map(|(kind, score)| (kind, score.shown())).collect();
        Self { total: scores.total.shown(), types }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last words of a program go to its standard error")]
            {
                eprintln!("forecast-evaluate: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let (judged, output) = match arguments.protocol {
        Protocol::Replay { history, file, output } => {
            let mut learnt = Vec::new();
            for path in history {
                learnt.extend(table::replay(&path)?);
            }
            let runs = table::replay(&file)?;
            (judge(&output, |sizer| protocol::replay(sizer, &learnt, &runs))?, output)
        }
        Protocol::Split { order, seed, file, output } => {
            let runs = table::split(&file)?;
            let order = table::order(&order, seed, runs.len())?;
            let run = |row: &usize| {
                let name = file.display();
                // Its line, after the header.
                runs[*row].clone().with_context(|| {
                    format!("{name}, line {}: realtime, memory, rss and rchar must all be there and, but for rchar, more than zero", row + 2)
                })
            };
            let pick = |rows: &[usize]| rows.iter().map(run).collect::<anyhow::Result<Vec<Run>>>();
            let (learnt, sized) = (pick(&order.history)?, pick(&order.sized)?);
            (judge(&output, |sizer| protocol::split(sizer, &learnt, &sized))?, output)
        }
    };
    show(&judged, output.json)
}

/// Judges each method that is asked for.
fn judge(output: &Output, protocol: impl Fn(&mut dyn Sizer) -> Scores) -> anyhow::Result<Vec<(String, Judged)>> {
    let all = [OWN].into_iter().chain(baselines::NAMES);
    let wanted = |name: &&str| output.method.is_empty() || output.method.iter().any(|method| method == name);
    let mut judged = Vec::new();
    for name in all.filter(wanted) {
        let mut sizer: Box<dyn Sizer> = match name {
            OWN => Box::new(ForecasterSizer::new(ProfileForecaster::default())),
            _ => baselines::named(name).with_context(|| format!("there is no method `{name}`"))?,
        };
        judged.push((name.to_owned(), protocol(&mut *sizer).into()));
    }
    Ok(judged)
}

#[expect(clippy::print_stdout, reason = "what it is for")]
fn show(judged: &[(String, Judged)], json: bool) -> anyhow::Result<()> {
    if json {
        let object: BTreeMap<&String, &Judged> = judged.iter().map(|(name, judged)| (name, judged)).collect();
        println!("{}", serde_json::to_string(&object)?);
        return Ok(());
    }
    println!("{:12} {:>12} {:>12} {:>10} {:>8}", "method", "wasted GB·h", "failed", "of tasks", "MAQ");
    for (name, Judged { total, .. }) in judged {
        let Shown { waste_gbh, failed_attempts, tasks, maq, .. } = total;
        println!("{name:12} {waste_gbh:>12.3} {failed_attempts:>12} {tasks:>10} {maq:>8.3}");
    }
    Ok(())
}
