//! Makes many runs of real systems under faults, and says which were made and which were survived.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use forecastle_end_to_end::faults::disaster::{self, Outcome, WORKERS};
use forecastle_end_to_end::faults::plan::{Fault, Plan};
use forecastle_end_to_end::stack::Stack;
use forecastle_simulation::survival::Survival;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::Mutex;

/// Runs real systems under faults: programs, RabbitMQ, runners and ClickHouse killed or stopped, links of network
/// namespaces cut, disks full, clocks set, and looks afterwards at ledger, history and machine. Needs root.
///
/// Runs alternate between RabbitMQ 3.10 and 4.3, each series with servers of its own on the loopback interface.
#[derive(Debug, Parser)]
#[command(name = "forecastle-inject-faults", max_term_width = 110)]
struct Arguments {
    /// How many runs.
    #[arg(long, default_value_t = 40)]
    runs: u64,

    /// The first of them: even ones are on RabbitMQ 3.10, odd ones on 4.3.
    #[arg(long, default_value_t = 0)]
    first: u64,

    /// Draws other faults and times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The series, with the ports from which its servers take theirs.
const SERIES: [(&str, u16, u16); 2] = [("3", 5850, 18360), ("4", 5870, 18380)];

#[derive(Default)]
struct Sum {
    faults: Survival<Fault>,
    runs: usize,
    lives: usize,
    failed: Vec<u64>,
}

impl Sum {
    fn add(&mut self, number: u64, outcome: &Outcome) {
        self.faults.add(&outcome.faults, outcome.violations.is_empty());
        self.runs += outcome.runs;
        self.lives += outcome.lives;
        if !outcome.violations.is_empty() {
            self.failed.push(number);
        }
    }
}

#[expect(clippy::print_stdout, reason = "what it is for")]
#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {elapsed} of about {duration}")?;
    let progress = ProgressBar::new(arguments.runs).with_style(style);
    let sum = Arc::new(Mutex::new(Sum::default()));
    // Each series has servers of its own, so that the two do not wait for each other.
    let mut lanes = tokio::task::JoinSet::new();
    for (lane, (series, rabbitmq_port, clickhouse_port)) in (0u64..).zip(SERIES) {
        let numbers: Vec<u64> =
            (arguments.first..arguments.first + arguments.runs).filter(|number| number % 2 == lane).collect();
        if numbers.is_empty() {
            continue;
        }
        let (sum, progress, seed) = (Arc::clone(&sum), progress.clone(), arguments.seed);
        lanes.spawn(async move {
            let start = move || Stack::own_of(series, rabbitmq_port, clickhouse_port);
            let stack = Arc::new(tokio::task::spawn_blocking(start).await??);
            for number in numbers {
                let plan = Plan::draw(number, seed, WORKERS);
                let planned: Vec<String> = plan.faults.iter().map(|planned| planned.fault.to_string()).collect();
                let planned = planned.join(", ");
                match disaster::run(&plan, Arc::clone(&stack)).await {
                    Ok(outcome) => {
                        let word = if outcome.violations.is_empty() { "survived" } else { "NOT survived" };
                        progress.suspend(|| println!("run {number:>3} ({:>3.0?}): {word}: {planned}", outcome.took));
                        for violation in &outcome.violations {
                            progress.suspend(|| println!("  {violation}"));
                        }
                        sum.lock().await.add(number, &outcome);
                    }
                    Err(error) => {
                        progress.suspend(|| println!("run {number:>3}: could not be made ({planned}): {error:#}"));
                        sum.lock().await.failed.push(number);
                        // It may have left servers that do not run.
                        let (stack, up) = (Arc::clone(&stack), ["up"]);
                        tokio::task::spawn_blocking(move || stack.run(&up).map(drop)).await??;
                    }
                }
                progress.inc(1);
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = lanes.join_next().await {
        ended??;
    }
    progress.finish_and_clear();
    let sum = sum.lock().await;
    println!("\n{}", sum.faults);
    let (shards, lives) = (sum.runs, sum.lives);
    println!("\n{} runs of systems: {shards} runs of shards, {lives} lives of workers", arguments.runs);
    if sum.failed.is_empty() {
        println!("every fault was survived");
        return Ok(ExitCode::SUCCESS);
    }
    println!("NOT survived: runs {:?}; `--first N --runs 1` makes one again", sum.failed);
    Ok(ExitCode::FAILURE)
}
