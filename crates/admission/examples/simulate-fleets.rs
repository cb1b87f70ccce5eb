//! Simulates fleets of the sizes that are asked for, and compares them with a clairvoyant packer where that is feasible.
//!
//! ```text
//! cargo run -p forecastle-admission --example simulate-fleets -- 10 100 1000
//! cargo run -p forecastle-admission --example simulate-fleets -- --trace jobs.csv 16
//! ```
//!
//! A trace is a CSV file with the header `released_ms,cpu_millis,memory_bytes,predicted_ms,duration_ms`; all jobs count
//! as standard. Those that do not fit a worker are cut to its size.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use forecastle_admission::Time;
use forecastle_admission::simulation::{Fleet, Job, load, pack, report};
use forecastle_resources::{Bytes, CpuMillis, Priority, ResourceVector};

/// The most workers that the packer, whose time grows with their square, is tried with.
const PACKABLE: usize = 200;

const HEADER: &str = "released_ms,cpu_millis,memory_bytes,predicted_ms,duration_ms";

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
            Some(path) => read(path, &capacity).with_context(|| format!("reading {}", path.display()))?,
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

fn read(path: &Path, capacity: &ResourceVector) -> anyhow::Result<Vec<Job>> {
    let text = fs::read_to_string(path)?;
    let mut lines = text.lines().enumerate();
    let header = lines.next().map(|(_, line)| line.trim());
    ensure!(header == Some(HEADER), "the first line is not `{HEADER}`");
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| job(line, capacity).with_context(|| format!("line {}", number + 1)))
        .collect()
}

fn job(line: &str, capacity: &ResourceVector) -> anyhow::Result<Job> {
    let numbers: Vec<u64> = line
        .split(',')
        .map(|field| field.trim().parse().with_context(|| format!("`{field}`")))
        .collect::<Result<_, _>>()?;
    let [released, cpu, memory, predicted, lasts] = numbers[..] else {
        anyhow::bail!("{} fields instead of 5", numbers.len());
    };
    Ok(Job {
        released: Time(Duration::from_millis(released)),
        priority: Priority::Standard,
        vector: ResourceVector::new(CpuMillis(cpu), Bytes(memory)).min(capacity),
        predicted: Duration::from_millis(predicted),
        lasts: Duration::from_millis(lasts),
        in_process: false,
    })
}
