//! The seam between claiming and running: what a run is given, and how it ended.
//!
//! Claiming knows nothing of processes, cgroups or folders; running knows nothing of offers, leases or the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use forecastle_admission::preallocation::Expectation;
use forecastle_protos::ids::{RunId, ShardId};
use forecastle_protos::v1::{self, Outcome};
use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, ResourceVector};

use crate::adjustment::Allocation;
use crate::assignment::Assignment;
use crate::stop::StopSignal;

/// One run to execute.
#[derive(Debug, Clone)]
pub struct Execution {
    /// Its id.
    pub run: RunId,
    /// What it does.
    pub assignment: Arc<Assignment>,
    /// How long it may take.
    pub limit: Option<Duration>,
    /// Tells it to end early.
    pub stop: StopSignal,
    /// Where it says what it uses now.
    pub usage: UsageNow,
    /// What it holds, and may be changed to hold while it runs.
    pub allocation: Allocation,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// In a word.
    pub outcome: Outcome,
    /// For failures: what is wrong, lower case, and for whom.
    pub error: String,
    /// Exit status of a command, or -1.
    pub exit_code: i32,
    /// The signal that ended a command, or 0.
    pub signal: i32,
    /// What was used.
    pub usage: Option<v1::Usage>,
    /// Where its output is; empty if there is none.
    pub output_uri: String,
    /// Its files.
    pub files: Vec<v1::OutputFile>,
    /// A small result (JSON); empty if there is none.
    pub inline_json: String,
    /// The end of standard error.
    pub log_tail: String,
    /// Where it came to, if it was stopped to run again and left word of that.
    pub checkpoint: Option<v1::Checkpoint>,
}

impl Ending {
    /// An ending without output.
    pub fn failed(outcome: Outcome, error: impl Into<String>) -> Self {
        Self {
            outcome,
            error: error.into(),
            exit_code: -1,
            signal: 0,
            usage: None,
            output_uri: String::new(),
            files: Vec::new(),
            inline_json: String::new(),
            log_tail: String::new(),
            checkpoint: None,
        }
    }
}

/// Executes runs.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// The units that it can run, sorted.
    fn units(&self) -> Vec<String>;

    /// Why it cannot run this unit, if it cannot.
    fn refuses(&self, unit: &str) -> Option<String>;

    /// How it keeps runs within what they hold: `cgroup-v2`, `cgroup-v1`, `rusage`.
    fn enforcement(&self) -> &'static str;

    /// Runs. When it answers nothing of the run is left but its output. It heeds the limit and the signal to stop; how
    /// it ended then is [`StopReason::outcome`](crate::stop::StopReason::outcome), unless it ended by itself first.
    async fn execute(&self, execution: Execution) -> Ending;

    /// What is expected to start here, for so long, instead of what was expected before: it may be made ready.
    fn expect(&self, _expected: Vec<Expected>, _for_so_long: Duration) {}

    /// Ends what waits for work; there will be no more.
    async fn close(&self) {}

    /// Removes what dead workers left on this machine; answers how many folders of theirs are gone. Blocks.
    fn sweep(&self) -> usize {
        0
    }

    /// Removes what runs of a shard left in the store, but for the one that won; answers of how many. Blocks.
    fn discard_outputs(&self, _shard: ShardId, _winner: RunId) -> usize {
        0
    }

    /// Removes what a run left in the store; true if there was something. Blocks.
    fn discard_output(&self, _shard: ShardId, _run: RunId) -> bool {
        false
    }
}

/// Runs of a unit that are expected to start here soon.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// The unit.
    pub unit: String,
    /// How many.
    pub expectation: Expectation,
    /// What each will reserve.
    pub reservation: ResourceVector,
}

/// What a run uses now, for load reports: each quantity as it was said last, zero before. Cheap to clone; clones share
/// it. The quantities are of about the same moment, not of exactly the same.
#[derive(Debug, Clone, Default)]
pub struct UsageNow(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    memory: AtomicU64,
    cpu: AtomicU64,
    io: AtomicU64,
    scratch: AtomicU64,
}

impl UsageNow {
    /// Says how much memory it is.
    pub fn set_memory(&self, memory: Bytes) {
        self.0.memory.store(memory.0, Ordering::Relaxed);
    }

    /// Says how much CPU and I/O it was in the last second or so.
    pub fn set_rates(&self, cpu: CpuMillis, io: BytesPerSecond) {
        self.0.cpu.store(cpu.0, Ordering::Relaxed);
        self.0.io.store(io.0, Ordering::Relaxed);
    }

    /// Says how much it has on scratch disk.
    pub fn set_scratch(&self, scratch: Bytes) {
        self.0.scratch.store(scratch.0, Ordering::Relaxed);
    }

    /// Memory.
    pub fn memory(&self) -> Bytes {
        Bytes(self.0.memory.load(Ordering::Relaxed))
    }

    /// CPU.
    pub fn cpu(&self) -> CpuMillis {
        CpuMillis(self.0.cpu.load(Ordering::Relaxed))
    }

    /// Bytes read and written per second.
    pub fn io(&self) -> BytesPerSecond {
        BytesPerSecond(self.0.io.load(Ordering::Relaxed))
    }

    /// What it has on scratch disk; zero of a run that reserved none.
    pub fn scratch(&self) -> Bytes {
        Bytes(self.0.scratch.load(Ordering::Relaxed))
    }
}
