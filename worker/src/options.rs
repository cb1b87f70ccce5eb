//! The worker's configuration: defaults → file → `FORECASTLE__…` → command line.
//!
//! What can be seen to be wrong is found by [`Preparation`](crate::preparation::Preparation), before the first
//! connection.

use std::path::PathBuf;
use std::time::Duration;

use forecastle_admission::{Pool, Shares};
use forecastle_broker::rabbitmq;
use forecastle_catalogue::HumanDuration;
use forecastle_resources::{Priority, ReferenceWorker, ResourceVector};
use forecastle_service::{AdminOptions, LogOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::adjustment::AdjustmentOptions;
use crate::enforcement::EnforcementOptions;
use crate::runner::{PreallocationOptions, RunnerOptions};

/// Everything that can be configured.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerOptions {
    /// The operator's name for this worker, 1 to 64 characters.
    #[schemars(extend("x-default" = "the machine's name"))]
    pub name: String,
    /// The fleet whose shards it takes.
    pub fleet: String,
    /// The catalogue of units.
    pub catalogue: CatalogueOptions,
    /// What shards may reserve here, all together. CPU and memory that are zero are what the machine (or this
    /// process's own cgroup) has, and scratch that is zero is what is free at the start on the disk of `scratch.root`;
    /// without `io`, shards that reserve some do not run here.
    pub capacity: ResourceVector,
    /// Parts of it for each priority.
    pub shares: SharesOptions,
    /// Which offers are claimed.
    pub claiming: ClaimingOptions,
    /// RabbitMQ.
    pub broker: rabbitmq::Options,
    /// Where inputs may be.
    pub input: InputOptions,
    /// Where outputs go.
    pub store: StoreOptions,
    /// Where runs keep what is gone after them.
    pub scratch: ScratchOptions,
    /// How runs are kept within what they hold.
    pub enforcement: EnforcementOptions,
    /// How leases follow what runs use.
    pub adjustment: AdjustmentOptions,
    /// How they are run.
    pub runner: RunnerOptions,
    /// What is made ready for work that is expected.
    pub preallocation: PreallocationOptions,
    /// Load reports.
    pub report: ReportOptions,
    /// Leaving.
    pub drain: DrainOptions,
    /// Metrics and health.
    pub admin: AdminOptions,
    /// Logs.
    pub logs: LogOptions,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            fleet: "default".to_owned(),
            catalogue: CatalogueOptions::default(),
            capacity: ResourceVector::ZERO,
            shares: SharesOptions::default(),
            claiming: ClaimingOptions::default(),
            broker: rabbitmq::Options::default(),
            input: InputOptions::default(),
            store: StoreOptions::default(),
            scratch: ScratchOptions::default(),
            enforcement: EnforcementOptions::default(),
            adjustment: AdjustmentOptions::default(),
            runner: RunnerOptions::default(),
            preallocation: PreallocationOptions::default(),
            report: ReportOptions::default(),
            drain: DrainOptions::default(),
            admin: AdminOptions::default(),
            logs: LogOptions::default(),
        }
    }
}

/// The catalogue of units.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CatalogueOptions {
    /// The file; the same that the frontend reads. It is read once, at the start.
    pub path: PathBuf,
}

impl Default for CatalogueOptions {
    fn default() -> Self {
        Self { path: PathBuf::from("catalogue.toml") }
    }
}

/// Parts of the capacity for each priority.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SharesOptions {
    /// For `urgent`.
    pub urgent: ShareOptions,
    /// For `standard`.
    pub standard: ShareOptions,
    /// For `batch`.
    pub batch: ShareOptions,
    /// A guaranteed part that is not used is lent to shards that are predicted to end within this time.
    pub lending_horizon: HumanDuration,
}

impl Default for SharesOptions {
    fn default() -> Self {
        Self {
            urgent: ShareOptions::default(),
            standard: ShareOptions::default(),
            batch: ShareOptions::default(),
            lending_horizon: HumanDuration(Pool::LENDING_HORIZON),
        }
    }
}

impl SharesOptions {
    /// One priority's.
    pub fn of(&self, priority: Priority) -> &ShareOptions {
        match priority {
            Priority::Urgent => &self.urgent,
            Priority::Standard => &self.standard,
            Priority::Batch => &self.batch,
        }
    }

    /// All of them, for the pool.
    pub fn shares(&self) -> Shares {
        Priority::ALL.into_iter().fold(Shares::none(), |shares, priority| {
            let ShareOptions { guaranteed, maximum } = self.of(priority).clone();
            shares.with_guaranteed(priority, guaranteed).with_maximum(priority, maximum)
        })
    }
}

/// A priority's part of the capacity.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShareOptions {
    /// What it can always get, at the latest within the lending horizon.
    pub guaranteed: ResourceVector,
    /// The most that it may hold; entries that are zero are not bounded.
    pub maximum: ResourceVector,
}

/// Which offers are claimed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimingOptions {
    /// How long an offer that cannot be claimed is kept from other workers, at most; one that is not predicted to start
    /// within it is handed back at once. `10ms` to `1min`.
    pub hold: HumanDuration,
    /// The most offers that are kept at a time without being claimed, at least 1.
    pub most_held: usize,
    /// The worker that size classes are measured against. Frontends must have the same.
    pub reference_worker: ReferenceWorker,
    /// The class of machine, for what is learnt of durations; from its processor by default.
    pub node_class: String,
}

impl Default for ClaimingOptions {
    fn default() -> Self {
        Self {
            hold: HumanDuration(Duration::from_secs(2)),
            most_held: 3,
            reference_worker: ReferenceWorker::default(),
            node_class: String::new(),
        }
    }
}

/// Where inputs may be.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InputOptions {
    /// Folders that inputs may be in, absolute; each must exist. With none, no shard may read an input.
    pub allowed_roots: Vec<PathBuf>,
}

/// Where outputs go.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreOptions {
    /// A folder that all workers of the fleet see under this path.
    pub root: PathBuf,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { root: PathBuf::from(".forecastle/store") }
    }
}

/// Where runs keep what is gone after them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScratchOptions {
    /// A folder on a local disk. Workers may share it; then say in `capacity.scratch` how much of the disk each has.
    pub root: PathBuf,
}

impl Default for ScratchOptions {
    fn default() -> Self {
        Self { root: PathBuf::from(".forecastle/scratch") }
    }
}

/// Load reports.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReportOptions {
    /// Time between two; `100ms` to `1min`. The frontend declares a worker lost that it has not heard of for its grace (15 s).
    pub interval: HumanDuration,
}

impl Default for ReportOptions {
    fn default() -> Self {
        Self { interval: HumanDuration(Duration::from_secs(1)) }
    }
}

/// Leaving.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrainOptions {
    /// How long runs may take to end by themselves. Those that do not are asked for a checkpoint
    /// (`runner.checkpoint_within`) and stopped, and run again elsewhere.
    pub grace: HumanDuration,
    /// How long, after that, to wait for runs to stop and for the broker to confirm what is to be said of them; at
    /// least `1s`.
    pub flush: HumanDuration,
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self { grace: HumanDuration(Duration::from_secs(30)), flush: HumanDuration(Duration::from_secs(15)) }
    }
}
