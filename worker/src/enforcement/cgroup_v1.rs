//! Cgroups of version 1: a folder in each hierarchy that is there.
//!
//! Memory is required. Without the others, CPU and I/O are not limited (and are measured from rusage), processes are
//! not counted, and killing has no freezer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forecastle_protos::ids::WorkerId;
use forecastle_resources::{Bytes, CpuMillis};

use crate::enforcement::block_device::BlockDevice;
use crate::enforcement::cage::{Cage, Enforcer, Limits, Sample};
use crate::enforcement::cgroup_folders::CgroupFolders;
use crate::enforcement::control_file::{self, read, read_if_present, read_number_if_present, write, write_if_present};
use crate::enforcement::error::EnforcementError;
use crate::enforcement::headroom::Mark;
use crate::enforcement::options::{CpuMode, EnforcementOptions, Mechanism};
use crate::enforcement::own_cgroup::OwnCgroup;
use crate::enforcement::statistics;
use crate::enforcement::tenure::{FOLDER, Tenure, sweep};

/// The quota's period in microseconds: the kernel's default.
const PERIOD: u64 = 100_000;

/// The smallest quota in microseconds that the kernel takes.
const LEAST_QUOTA: u64 = 1000;

/// Hierarchies, each with something of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Folders {
    memory: PathBuf,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    blkio: Option<PathBuf>,
    pids: Option<PathBuf>,
    freezer: Option<PathBuf>,
}

impl Folders {
    fn map(&self, each: impl Fn(&Path) -> PathBuf) -> Self {
        let map = |folder: &Option<PathBuf>| folder.as_deref().map(&each);
        Self {
            memory: each(&self.memory),
            cpu: map(&self.cpu),
            cpuacct: map(&self.cpuacct),
            blkio: map(&self.blkio),
            pids: map(&self.pids),
            freezer: map(&self.freezer),
        }
    }

    /// Each once, though controllers can share a hierarchy. Memory stands last: it is joined when the rest is done.
    fn distinct(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = Vec::new();
        for folder in [&self.freezer, &self.pids, &self.cpu, &self.cpuacct, &self.blkio].into_iter().flatten() {
            if !all.contains(folder) && *folder != self.memory {
                all.push(folder.clone());
            }
        }
        all.push(self.memory.clone());
        all
    }
}

/// Makes cages of version 1.
#[derive(Debug)]
pub struct CgroupV1 {
    folders: Folders,
    tenure: Arc<Tenure>,
    settings: Settings,
}

#[derive(Debug, Clone)]
struct Settings {
    cpu: CpuMode,
    memory_headroom_percent: u8,
    most_processes: u64,
    devices: Vec<BlockDevice>,
}

impl CgroupV1 {
    /// Sweeps what earlier lives left and makes this life's folders. Blocks.
    pub fn new(
        own: &OwnCgroup,
        options: &EnforcementOptions,
        devices: Vec<BlockDevice>,
        worker: WorkerId,
    ) -> Result<Self, EnforcementError> {
        let parent =
            |controller: &str| own.v1.get(controller).map(|found| found.at(options.base.as_deref()).join(FOLDER));
        let unavailable = |reason: String| EnforcementError::Unavailable { mechanism: Mechanism::CgroupV1, reason };
        let memory = parent("memory").ok_or_else(|| unavailable("no hierarchy for memory is mounted".to_owned()))?;
        let parents = Folders {
            memory,
            cpu: parent("cpu"),
            cpuacct: parent("cpuacct"),
            blkio: parent("blkio"),
            pids: parent("pids"),
            freezer: parent("freezer"),
        };
        let swept = sweep(&parents.distinct(), parents.freezer.as_deref());
        if swept > 0 {
            tracing::info!(folders = swept, "removed what dead workers had left");
        }
        let tenure = Tenure::begin(parents.distinct(), worker).map_err(|error| {
            let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            unavailable(format!("{error} ({why}); run the worker as root, or give it cgroups of its own"))
        })?;
        let folders = parents.map(|parent| tenure.folder(parent));
        for (missing, what) in [
            (folders.cpu.is_none(), "cpu is not limited"),
            (folders.cpuacct.is_none(), "CPU time is measured when processes end"),
            (folders.blkio.is_none(), "I/O is measured when processes end"),
            (folders.pids.is_none(), "processes are not limited"),
        ] {
            if missing {
                tracing::warn!("a hierarchy of cgroups is missing: {what}");
            }
        }
        let settings = Settings {
            cpu: options.cpu,
            memory_headroom_percent: options.memory_headroom_percent,
            most_processes: options.most_processes,
            devices,
        };
        Ok(Self { folders, tenure: Arc::new(tenure), settings })
    }
}

impl Enforcer for CgroupV1 {
    fn mechanism(&self) -> Mechanism {
        Mechanism::CgroupV1
    }

    fn sweep(&self) -> usize {
        sweep(self.tenure.parents(), self.folders.freezer.as_deref().and_then(Path::parent))
    }

    fn create(&self, name: &str, limits: &Limits) -> Result<Box<dyn Cage>, EnforcementError> {
        let folders = self.folders.map(|folder| folder.join(name));
        let cgroups = CgroupFolders::create(folders.distinct(), folders.freezer.clone(), Arc::clone(&self.tenure))?;
        let joining = folders.distinct().iter().map(|folder| folder.join("cgroup.procs")).collect();
        let cage = CgroupV1Cage { folders, cgroups, joining, settings: self.settings.clone() };
        if let Some(pids) = &cage.folders.pids {
            write(&pids.join("pids.max"), self.settings.most_processes)?;
        }
        cage.resize(limits)?;
        Ok(Box::new(cage))
    }
}

/// A cage of version 1.
#[derive(Debug)]
struct CgroupV1Cage {
    folders: Folders,
    cgroups: CgroupFolders,
    joining: Vec<PathBuf>,
    settings: Settings,
}

impl CgroupV1Cage {
    fn limit_memory(&self, limit: Option<Bytes>) -> Result<(), EnforcementError> {
        let folder = &self.folders.memory;
        let (memory, swap) = (folder.join("memory.limit_in_bytes"), folder.join("memory.memsw.limit_in_bytes"));
        let limit = limit.map_or_else(|| "-1".to_owned(), |limit| limit.0.to_string());
        // Memory and swap together are limited to the same, so that there is no swap. The kernel keeps
        // memory <= memory + swap at every moment: so this order when it grows, the other when it shrinks.
        if write(&memory, &limit).is_ok() {
            if !write_if_present(&swap, &limit)? {
                write_if_present(&folder.join("memory.swappiness"), 0)?;
            }
            return Ok(());
        }
        if write_if_present(&swap, &limit)? {
            return write(&memory, &limit);
        }
        // It was not the order.
        write(&memory, &limit)
    }

    /// Where the machine is short of memory, page cache above this is the first that the kernel takes back.
    fn mark_memory(&self, limit: Option<Bytes>) -> Result<(), EnforcementError> {
        let mark = limit.and_then(|limit| Mark::below(limit, self.settings.memory_headroom_percent));
        let text = mark.map_or_else(|| "-1".to_owned(), |mark| mark.at().get().to_string());
        write_if_present(&self.folders.memory.join("memory.soft_limit_in_bytes"), text).map(drop)
    }

    fn limit_cpu(&self, cpu: CpuMillis) -> Result<(), EnforcementError> {
        let Some(folder) = &self.folders.cpu else { return Ok(()) };
        write(&folder.join("cpu.shares"), shares(cpu))?;
        if self.settings.cpu == CpuMode::Quota && cpu > CpuMillis::ZERO {
            write(&folder.join("cpu.cfs_period_us"), PERIOD)?;
            return write(&folder.join("cpu.cfs_quota_us"), quota_microseconds(cpu));
        }
        // A kernel without quotas has no such file.
        write_if_present(&folder.join("cpu.cfs_quota_us"), -1).map(drop)
    }

    fn limit_io(&self, limits: &Limits) -> Result<(), EnforcementError> {
        let Some(folder) = &self.folders.blkio else { return Ok(()) };
        // Zero removes the limit.
        let rate = limits.io.map_or(0, forecastle_resources::BytesPerSecond::get);
        for device in &self.settings.devices {
            for file in ["blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"] {
                write(&folder.join(file), format_args!("{device} {rate}"))?;
            }
        }
        Ok(())
    }
}

/// Shares of version 1: 1024 for a core.
fn shares(cpu: CpuMillis) -> u64 {
    (cpu.get().saturating_mul(1024) / 1000).clamp(2, 262_144)
}

/// The quota of one period, in microseconds.
pub(crate) fn quota_microseconds(cpu: CpuMillis) -> u64 {
    cpu.get().saturating_mul(PERIOD / 1000).max(LEAST_QUOTA)
}

impl Cage for CgroupV1Cage {
    fn joining(&self) -> &[PathBuf] {
        &self.joining
    }

    fn sample(&self) -> Result<Option<Sample>, EnforcementError> {
        let memory = &self.folders.memory;
        let kernel = read_number_if_present(&memory.join("memory.kmem.usage_in_bytes"))?;
        let (io_read, io_write) = match &self.folders.blkio {
            Some(folder) => read_if_present(&folder.join("blkio.throttle.io_service_bytes_recursive"))?
                .map(|text| statistics::io_v1(&text))
                .unwrap_or_default(),
            None => Default::default(),
        };
        let cpu = match &self.folders.cpuacct {
            Some(folder) => control_file::read_number(&folder.join("cpuacct.usage"))?.map(Duration::from_nanos),
            None => None,
        };
        Ok(Some(Sample {
            memory: statistics::actual_memory_v1(&read(&memory.join("memory.stat"))?, kernel),
            charged_at_most: read_number_if_present(&memory.join("memory.max_usage_in_bytes"))?.map(Bytes),
            cpu,
            io_read,
            io_write,
            oom_kills: statistics::value(&read(&memory.join("memory.oom_control"))?, "oom_kill").unwrap_or(0),
        }))
    }

    fn resize(&self, limits: &Limits) -> Result<(), EnforcementError> {
        self.limit_memory(limits.memory)?;
        self.mark_memory(limits.memory)?;
        self.limit_cpu(limits.cpu)?;
        self.limit_io(limits)
    }

    fn throttle(&self, cpu: Option<CpuMillis>) -> Result<(), EnforcementError> {
        let Some(folder) = &self.folders.cpu else { return Ok(()) };
        let quota = cpu.map_or_else(|| "-1".to_owned(), |cpu| quota_microseconds(cpu).to_string());
        write(&folder.join("cpu.cfs_period_us"), PERIOD)?;
        write(&folder.join("cpu.cfs_quota_us"), quota)
    }

    fn kill_all(&self) -> Result<usize, EnforcementError> {
        self.cgroups.kill_all()
    }

    fn remove(&self) -> Result<(), EnforcementError> {
        self.cgroups.remove()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_1024_shares_and_a_whole_period() {
        assert_eq!(shares(CpuMillis::cores(1)), 1024);
        assert_eq!(shares(CpuMillis(500)), 512);
        assert_eq!(shares(CpuMillis::ZERO), 2);
        assert_eq!(shares(CpuMillis(u64::MAX)), 262_144);
        assert_eq!(quota_microseconds(CpuMillis(1500)), 150_000);
        assert_eq!(quota_microseconds(CpuMillis(1)), LEAST_QUOTA);
    }

    #[test]
    fn controllers_that_share_a_hierarchy_share_a_folder() {
        let folders = Folders {
            memory: "/m".into(),
            cpu: Some("/c".into()),
            cpuacct: Some("/c".into()),
            blkio: None,
            pids: Some("/p".into()),
            freezer: None,
        };
        assert_eq!(folders.distinct(), [Path::new("/p"), Path::new("/c"), Path::new("/m")]);
        assert_eq!(folders.map(|folder| folder.join("x")).memory, Path::new("/m/x"));
    }
}
