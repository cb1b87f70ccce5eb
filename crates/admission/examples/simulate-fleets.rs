//! Simulates fleets of the sizes that are asked for, and compares them with a clairvoyant packer where that is feasible.
//!
//! ```text
//! cargo run -p forecastle-admission --example simulate-fleets -- 10 100 1000
//! cargo run -p forecastle-admission --example simulate-fleets -- --trace jobs.csv 16
//! ```
//!
//! What a trace is: [`trace`].

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use forecastle_admission::simulation::{Fleet, load, pack, report, trace};
use forecastle_resources::{Bytes, CpuMillis, ResourceVector};

/// The most workers that the packer, whose time grows with their square, is tried with.
const PACKABLE: usize = 200;

/// Simulates fleets: utilisation, waiting and operations on the broker, by the code that real workers run.
#[derive(Debug, Parser)]
struct Arguments {
    /// Sizes of fleets.
    #[arg(required = true)]
    workers: Vec<usize>,
    /// Jobs to run instead of random ones, a CSV file.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Random jobs for each worker.
    #[arg(long, default_value_t = 20)]
    jobs: usize,
    /// Cores of a worker.
    #[arg(long, default_value_t = 8)]
    cores: u64,
    /// GiB of a worker.
    #[arg(long, default_value_t = 16)]
    gib: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let capacity = ResourceVector::new(CpuMillis::cores(arguments.cores), Bytes::gib(arguments.gib));
    println!(
        "{:>8} {:>9} {:>8} {:>12} {:>10} {:>10} {:>12} {:>11} {:>9}",
        "workers", "jobs", "scarce", "utilisation", "of packer", "per claim", "longest wait", "makespan", "took"
    );
    for workers in arguments.workers {
        let jobs = match &arguments.trace {
            Some(path) => {
                let reading = || format!("reading {}", path.display());
                trace::parse(&fs::read_to_string(path).with_context(reading)?, &capacity).with_context(reading)?
            }
            None => load::mixed(workers * arguments.jobs, &capacity, 0.5, 1),
        };
        let total = (0..workers).fold(ResourceVector::ZERO, |sum, _| sum.saturating_add(&capacity));
        let scarce = report::scarce(&jobs, &total);
        let started = Instant::now();
        let fleet = Fleet::new(workers, capacity.clone()).run(&jobs, Duration::MAX);
        let took = started.elapsed();
        let window = |makespan: Duration| makespan.mul_f64(0.6);
        let (used, of_packer) = if workers <= PACKABLE {
            let packer = pack(workers, &capacity, &jobs);
            let at = window(packer.makespan);
            let used = fleet.utilisation(&jobs, &total, &scarce, at);
            (used, format!("{:.1} %", 100.0 * used / packer.utilisation(&jobs, &total, &scarce, at)))
        } else {
            (fleet.utilisation(&jobs, &total, &scarce, window(fleet.makespan)), "-".to_owned())
        };
        println!(
            "{workers:>8} {:>9} {:>8} {:>10.1} % {of_packer:>10} {:>10.1} {:>10.1} s {:>9.0} s {:>7.1} s",
            jobs.len(),
            scarce.to_string(),
            100.0 * used,
            fleet.operations.per_claim(),
            fleet.longest_wait(&jobs, |_| true).unwrap_or_default().as_secs_f64(),
            fleet.makespan.as_secs_f64(),
            took.as_secs_f64(),
        );
    }
    Ok(())
}
