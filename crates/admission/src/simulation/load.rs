//! What is released when, and loads to try.

use std::time::Duration;

use forecastle_resources::{Bytes, CpuMillis, Priority, ResourceVector};

use crate::time::Time;

/// A shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// When it is released to its queue.
    pub released: Time,
    /// Whose share it counts against.
    pub priority: Priority,
    /// What it reserves.
    pub vector: ResourceVector,
    /// How long it is predicted to last, with a probability of 95 %.
    pub predicted: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// Whether it needs no process of its own.
    pub in_process: bool,
}

/// Numbers without pattern, the same for the same seed (a 64-bit linear congruential generator; Knuth, TAOCP 2, 3.3.4).
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        let mut numbers = Self(seed);
        // The first ones of small seeds are alike.
        (0..8).for_each(|_| _ = numbers.fraction());
        numbers
    }

    /// Between 0 and 1, exclusive.
    pub fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Between `least` and `most`, every order of magnitude as likely as every other.
    pub fn log_uniform(&mut self, least: f64, most: f64) -> f64 {
        least * (most / least).powf(self.fraction())
    }
}

/// Jobs of all sizes up to the part `largest` of a worker of `capacity`, that last half a second to two minutes, of all
/// priorities, all there from the beginning. Most are short of what is predicted; one in twenty lasts twice as long.
pub fn mixed(count: usize, capacity: &ResourceVector, largest: f64, seed: u64) -> Vec<Job> {
    let mut numbers = Numbers::new(seed);
    (0..count)
        .map(|_| {
            let lasts = numbers.log_uniform(0.5, 120.0);
            let predicted = if numbers.fraction() < 0.05 { lasts * 0.5 } else { lasts * (1.0 + numbers.fraction()) };
            let vector = ResourceVector::new(
                CpuMillis(part(capacity.cpu.0, numbers.log_uniform(0.03, 0.7 * largest))),
                Bytes(part(capacity.memory.0, numbers.log_uniform(0.03, largest))),
            );
            let priority = match numbers.fraction() {
                dice if dice < 0.1 => Priority::Urgent,
                dice if dice < 0.6 => Priority::Standard,
                _ => Priority::Batch,
            };
            Job {
                released: Time::START,
                priority,
                vector,
                predicted: Duration::from_secs_f64(predicted),
                lasts: Duration::from_secs_f64(lasts),
                in_process: false,
            }
        })
        .collect()
}

/// A stream of small jobs that alone would keep `workers` busy for `seconds`, an eighth more than they can do; with one
/// that takes all of a worker released in the middle of it; answers with its place. All of one priority. They last
/// `overrun` times as long as predicted.
pub fn one_large_among_small(
    workers: usize,
    capacity: &ResourceVector,
    seconds: u64,
    overrun: f64,
    seed: u64,
) -> (Vec<Job>, usize) {
    let mut numbers = Numbers::new(seed);
    let job = |released: f64, of: f64, lasts: f64| Job {
        released: Time(Duration::from_secs_f64(released)),
        priority: Priority::Standard,
        vector: ResourceVector::new(CpuMillis(part(capacity.cpu.0, of)), Bytes(part(capacity.memory.0, of))),
        predicted: Duration::from_secs_f64(lasts / overrun),
        lasts: Duration::from_secs_f64(lasts),
        in_process: false,
    };
    // Ten at a time on each worker, of five seconds on average.
    let rate = workers as f64 * 10.0 / 5.0 * 1.125;
    let releases = (0_u32..).map(|number| f64::from(number) / rate).take_while(|at| *at < seconds as f64);
    let mut jobs: Vec<Job> = releases.map(|at| job(at, 0.1, 1.0 + 8.0 * numbers.fraction())).collect();
    jobs.push(job(seconds as f64 / 2.0, 1.0, 5.0));
    let large = jobs.len() - 1;
    (jobs, large)
}

fn part(whole: u64, of: f64) -> u64 {
    Bytes(whole).scale(of).0.clamp(1, whole)
}
