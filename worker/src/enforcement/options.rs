//! How runs are kept within what they hold.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What limits and measures runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// One cgroup of version 2 for each run.
    CgroupV2,
    /// One cgroup in each hierarchy of version 1 for each run.
    CgroupV1,
    /// Nothing limits; what the kernel says of ended processes is measured.
    Rusage,
}

impl Mechanism {
    /// As it stands in events, reports and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CgroupV2 => "cgroup-v2",
            Self::CgroupV1 => "cgroup-v1",
            Self::Rusage => "rusage",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What reserved CPU means to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CpuMode {
    /// A weight: a run gets at least its part when all want CPU, and more while others leave theirs idle.
    #[default]
    Weight,
    /// A quota (and the weight): a run never gets more than it reserved, even on an idle machine. Durations vary less,
    /// and are longer.
    Quota,
}

/// How runs are kept within what they hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EnforcementOptions {
    /// Insists on a mechanism: without it the worker does not start. By default the best one that works is used, and
    /// it is said in the log if that is `rusage`.
    pub mechanism: Option<Mechanism>,
    /// The cgroup below which the worker makes its own, as a path from the root of the hierarchies, such as
    /// `/forecastle.slice`. By default the one that the worker was started in. With version 2 no process may be in it
    /// (the worker itself moves out of the way).
    pub base: Option<PathBuf>,
    /// What reserved CPU means.
    pub cpu: CpuMode,
    /// The last part of a run's memory, in percent (at most 50; 0 for none): above it, with version 2, the kernel takes
    /// back page cache and makes the run wait, for half a second at most, so that it can be given more before the limit
    /// kills it. Version 1 slows nothing: there, page cache above it is the first to go when the machine is short.
    pub memory_headroom_percent: u8,
    /// The most processes and threads of one run, at least 8: what ends a fork bomb.
    pub most_processes: u64,
    /// Reserved I/O rates become limits on the disks that hold these paths, such as `scratch.root` and `store.root`. With
    /// none, I/O is measured only. A path that is not there yet stands for the folder that it will be made in. Buffered
    /// writes escape the limit with version 1.
    pub limit_io_of: Vec<PathBuf>,
}

impl EnforcementOptions {
    /// The fewest processes that a run can be limited to.
    pub const FEWEST_PROCESSES: u64 = 8;

    /// The largest headroom, in percent.
    pub const MOST_HEADROOM: u8 = 50;
}

impl Default for EnforcementOptions {
    fn default() -> Self {
        Self {
            mechanism: None,
            base: None,
            cpu: CpuMode::default(),
            memory_headroom_percent: 5,
            most_processes: 1024,
            limit_io_of: Vec::new(),
        }
    }
}
