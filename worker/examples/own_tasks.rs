//! A worker with tasks of its own, of the kind that wants a process of its own.
//!
//! With this in the catalogue, each run of `example.digits` is limited, measured and ended by itself, as a command is:
//!
//! ```toml
//! [units.digits]
//! task = "example.digits"
//! isolated = true
//! reserve = { cpu = "1", memory = "64MiB" }
//! ```
//!
//! The worker starts this program again for that. It comes to `run`, which serves one task there and ends the process.

use std::collections::BTreeMap;
use std::time::Duration;

use forecastle_task::{Context, Task, TaskError, async_trait};
use forecastle_worker::{Worker, WorkerOptions};
use serde::{Deserialize, Serialize};

/// Adds up the digits of all numbers below a bound, and can go on where an earlier attempt was stopped.
struct Digits;

#[derive(Deserialize)]
struct Bound {
    below: u64,
    #[serde(default)]
    pause_ms: u64,
}

#[derive(Serialize, Deserialize, Default)]
struct Sum {
    next: u64,
    sum: u64,
}

#[async_trait]
impl Task for Digits {
    const NAME: &'static str = "example.digits";
    type Parameters = Bound;
    type Output = Sum;

    async fn run(&self, bound: Bound, context: &Context) -> Result<Sum, TaskError> {
        let mut sum: Sum = match context.checkpoint() {
            Some(checkpoint) => serde_json::from_slice(checkpoint).unwrap_or_default(),
            None => Sum::default(),
        };
        while sum.next < bound.below {
            if context.is_cancelled() {
                return Err(TaskError::retryable("stopped"));
            }
            sum.sum += sum.next.to_string().bytes().map(|digit| u64::from(digit - b'0')).sum::<u64>();
            sum.next += 1;
            let checkpoint = serde_json::to_vec(&sum).map_err(TaskError::permanent)?;
            context.keep_checkpoint(checkpoint).map_err(TaskError::permanent)?;
            tokio::time::sleep(Duration::from_millis(bound.pause_ms)).await;
        }
        Ok(sum)
    }
}

/// Takes memory, and says what it is told of itself: to see what a limit does.
struct Memory;

#[derive(Deserialize)]
struct Amount {
    mib: usize,
    #[serde(default)]
    panics: bool,
}

#[derive(Serialize)]
struct Told {
    directory: String,
    cpu_millis: u64,
    environment: BTreeMap<String, String>,
}

#[async_trait]
impl Task for Memory {
    const NAME: &'static str = "example.memory";
    type Parameters = Amount;
    type Output = Told;

    async fn run(&self, amount: Amount, context: &Context) -> Result<Told, TaskError> {
        let taken = context.blocking(move || vec![1u8; amount.mib << 20]).await?;
        assert!(!amount.panics, "as it should");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let name = context.output().join("bytes");
        std::fs::write(name, taken.len().to_string())?;
        Ok(Told {
            directory: std::env::current_dir()?.display().to_string(),
            cpu_millis: context.allocation().borrow().cpu.get(),
            environment: std::env::vars().collect(),
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Worker::builder(WorkerOptions::default()).task(Digits).task(Memory).run().await
}
