//! Runs many seeds, and says which faults happened and which were survived.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use forecastle_protos::v1::RequestState;
use forecastle_simulation::survival::Survival;
use forecastle_simulation::weather::Fault;
use forecastle_simulation::world::{self, Outcome, Settings};
use indicatif::{ProgressBar, ProgressStyle};

/// Simulates whole systems under faults: the real frontend and workers over a broker in memory, with real ledger files
/// and simulated time.
///
/// Each seed draws requests and faults: roles killed at times and between any two steps, links cut, messages lost,
/// doubled and late, roles paused past their leases, clocks that jump, full disks, a broker that takes nothing. At the
/// end every acknowledged request must have ended, every success stand once in the ledger and once in history, and
/// nothing be held any more.
#[derive(Debug, Parser)]
#[command(name = "forecastle-simulate-faults", max_term_width = 110)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 500)]
    seeds: u64,

    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,

    /// Seeds at a time.
    #[arg(long, default_value_t = default_jobs())]
    jobs: usize,

    /// Log what happens, on standard error: for one seed, to see why it fails. A filter as for the programs
    /// (`info`, `debug,forecastle_worker=trace`).
    #[arg(long)]
    log: Option<String>,
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What all seeds came to.
#[derive(Default)]
struct Sum {
    faults: Survival<Fault>,
    requests: BTreeMap<RequestState, u64>,
    shards: u64,
    runs: u64,
    lasted: Duration,
    failed: Vec<u64>,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.faults.add(&outcome.tally, outcome.is_survived());
        for (state, count) in &outcome.requests {
            *self.requests.entry(*state).or_default() += count;
        }
        self.shards += outcome.shards;
        self.runs += outcome.runs;
        self.lasted += outcome.lasted;
        if !outcome.is_survived() {
            self.failed.push(outcome.seed);
        }
    }
}

#[expect(clippy::print_stdout, reason = "what it is for")]
fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(filter) = &arguments.log {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {elapsed} of about {duration}")?;
    let progress = ProgressBar::new(arguments.seeds).with_style(style);
    let (next, sum, broken) = (AtomicU64::new(arguments.first), Mutex::new(Sum::default()), Mutex::new(Vec::new()));
    let end = arguments.first.saturating_add(arguments.seeds);
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    match world::run(seed, Settings::default()) {
                        Ok(outcome) => {
                            if !outcome.is_survived() {
                                progress.suspend(|| println!("{outcome}"));
                            }
                            lock(&sum).add(&outcome);
                        }
                        Err(error) => lock(&broken).push(format!("seed {seed} could not be run: {error:#}")),
                    }
                    progress.inc(1);
                }
            });
        }
    });
    progress.finish_and_clear();
    let (sum, broken) = (lock(&sum), lock(&broken));
    println!("{}", sum.faults);
    let ended: Vec<String> = sum.requests.iter().map(|(state, count)| format!("{count} {state:?}")).collect();
    let hours = sum.lasted.as_secs_f64() / 3600.0;
    println!(
        "\n{} seeds, {hours:.1} hours of simulated time: {} shards succeeded in {} runs; requests: {}",
        arguments.seeds,
        sum.shards,
        sum.runs,
        ended.join(", ").to_lowercase()
    );
    broken.iter().for_each(|line| println!("{line}"));
    if sum.failed.is_empty() && broken.is_empty() {
        println!("every fault was survived");
        return Ok(ExitCode::SUCCESS);
    }
    println!("NOT survived: seeds {:?}; `--first N --seeds 1 --log info` shows one", sum.failed);
    Ok(ExitCode::FAILURE)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
