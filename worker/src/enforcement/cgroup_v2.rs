//! Cgroups of version 2: one folder for each run.
//!
//! They stand below a base that the worker owns: under systemd the cgroup of a unit with `Delegate=yes`, in a container
//! its root. See `delegation` for what is done to the base.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forecastle_protos::ids::WorkerId;
use forecastle_resources::{Bytes, CpuMillis};

use crate::enforcement::block_device::BlockDevice;
use crate::enforcement::cage::{Cage, Enforcer, Limits, Sample};
use crate::enforcement::cgroup_folders::CgroupFolders;
use crate::enforcement::cgroup_v1::quota_microseconds;
use crate::enforcement::control_file::{
    read, read_if_present, read_number, read_number_if_present, write, write_if_present,
};
use crate::enforcement::delegation::{
    CONTROLLERS, SUPERVISOR, controllers, hand_on, hand_on_from_base, no_memory, obstacle,
};
use crate::enforcement::error::EnforcementError;
use crate::enforcement::headroom::Mark;
use crate::enforcement::options::{CpuMode, EnforcementOptions, Mechanism};
use crate::enforcement::own_cgroup::OwnCgroup;
use crate::enforcement::statistics;
use crate::enforcement::tenure::{FOLDER, Tenure, sweep};

/// The quota's period in microseconds: the kernel's default.
const PERIOD: u64 = 100_000;

/// Makes cages of version 2.
#[derive(Debug)]
pub struct CgroupV2 {
    folder: PathBuf,
    tenure: Arc<Tenure>,
    settings: Settings,
}

#[derive(Debug, Clone)]
struct Settings {
    cpu: CpuMode,
    memory_headroom_percent: u8,
    most_processes: u64,
    devices: Vec<BlockDevice>,
    /// Controllers that the cages have.
    has_cpu: bool,
    has_io: bool,
    has_pids: bool,
}

impl CgroupV2 {
    /// Sweeps what earlier lives left and makes this life's folder. Blocks.
    pub fn new(
        own: &OwnCgroup,
        options: &EnforcementOptions,
        devices: Vec<BlockDevice>,
        worker: WorkerId,
    ) -> Result<Self, EnforcementError> {
        let unavailable = |reason: String| EnforcementError::Unavailable { mechanism: Mechanism::CgroupV2, reason };
        let hierarchy = own.v2.as_ref().ok_or_else(|| unavailable("it is not mounted".to_owned()))?;
        let base = hierarchy.at(options.base.as_deref());
        // In an earlier life of this process image the worker moved out of the way already.
        let base = match (base.file_name(), base.parent()) {
            (Some(name), Some(parent)) if name == SUPERVISOR => parent.to_owned(),
            _ => base,
        };
        let offered =
            controllers(&base.join("cgroup.controllers")).map_err(|error| unavailable(obstacle(&base, &error)))?;
        if !offered.iter().any(|controller| controller == CONTROLLERS[0]) {
            return Err(unavailable(no_memory(&hierarchy.mount, &base, &offered)));
        }
        let parent = base.join(FOLDER);
        let swept = sweep(std::slice::from_ref(&parent), None);
        if swept > 0 {
            tracing::info!(folders = swept, "removed what dead workers had left");
        }
        let prepare = || {
            hand_on_from_base(&base, &offered)?;
            let tenure = Tenure::begin(vec![parent.clone()], worker)?;
            hand_on(&parent, &offered)?;
            hand_on(&tenure.folder(&parent), &offered)?;
            Ok::<_, EnforcementError>(tenure)
        };
        let tenure = prepare().map_err(|error| unavailable(obstacle(&base, &error)))?;
        let has = |controller: &str| {
            let has = offered.iter().any(|offered| offered == controller);
            if !has {
                tracing::warn!(controller, "a controller of cgroups is missing: what it would limit is not limited");
            }
            has
        };
        let settings = Settings {
            cpu: options.cpu,
            memory_headroom_percent: options.memory_headroom_percent,
            most_processes: options.most_processes,
            devices,
            has_cpu: has("cpu"),
            has_io: has("io"),
            has_pids: has("pids"),
        };
        Ok(Self { folder: tenure.folder(&parent), tenure: Arc::new(tenure), settings })
    }
}

impl Enforcer for CgroupV2 {
    fn mechanism(&self) -> Mechanism {
        Mechanism::CgroupV2
    }

    fn sweep(&self) -> usize {
        sweep(self.tenure.parents(), None)
    }

    fn create(&self, name: &str, limits: &Limits) -> Result<Box<dyn Cage>, EnforcementError> {
        let folder = self.folder.join(name);
        let cgroups = CgroupFolders::create(vec![folder.clone()], None, Arc::clone(&self.tenure))?;
        let joining = vec![folder.join("cgroup.procs")];
        let settings = self.settings.clone();
        let cage = CgroupV2Cage { folder, cgroups, joining, settings, mark: Mutex::new(None) };
        if self.settings.has_pids {
            write(&cage.folder.join("pids.max"), self.settings.most_processes)?;
        }
        // No swap, and half of a run is worth nothing: a kill for memory takes all of it.
        write_if_present(&cage.folder.join("memory.swap.max"), 0)?;
        write_if_present(&cage.folder.join("memory.oom.group"), 1)?;
        cage.resize(limits)?;
        Ok(Box::new(cage))
    }
}

/// A cage of version 2.
#[derive(Debug)]
struct CgroupV2Cage {
    folder: PathBuf,
    cgroups: CgroupFolders,
    joining: Vec<PathBuf>,
    settings: Settings,
    /// Where the run is slowed, while it is.
    mark: Mutex<Option<Mark>>,
}

impl CgroupV2Cage {
    /// The kernel kills what is above a limit when it is set, if taking back page cache does not help. So it is first
    /// asked for that without a limit; a run that has more in its hands keeps the limit that it has.
    fn limit_memory(&self, limit: Option<Bytes>) -> Result<(), EnforcementError> {
        let (max, high) = (self.folder.join("memory.max"), self.folder.join("memory.high"));
        let text = |bytes: Option<Bytes>| bytes.map_or_else(|| "max".to_owned(), |bytes| bytes.get().to_string());
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(limit) = limit {
            let current = self.folder.join("memory.current");
            let charged = || read_number(&current).map(|charged| charged.unwrap_or(0));
            if charged()? > limit.get() {
                write(&high, limit.get())?;
                if charged()? > limit.get() {
                    write(&high, text(mark.map(|mark| mark.at())))?;
                    let source = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
                    return Err(EnforcementError::control("shrink below what is in use", max, source));
                }
            }
        }
        write(&max, text(limit))?;
        *mark = limit.and_then(|limit| Mark::below(limit, self.settings.memory_headroom_percent));
        write(&high, text(mark.map(|mark| mark.at())))
    }

    fn limit_cpu(&self, cpu: CpuMillis) -> Result<(), EnforcementError> {
        if !self.settings.has_cpu {
            return Ok(());
        }
        write(&self.folder.join("cpu.weight"), weight(cpu))?;
        let quota = if self.settings.cpu == CpuMode::Quota && cpu > CpuMillis::ZERO {
            quota_microseconds(cpu).to_string()
        } else {
            "max".to_owned()
        };
        write(&self.folder.join("cpu.max"), format_args!("{quota} {PERIOD}"))
    }

    fn limit_io(&self, limits: &Limits) -> Result<(), EnforcementError> {
        if self.settings.has_io {
            for device in &self.settings.devices {
                write(&self.folder.join("io.max"), io_limit(*device, limits))?;
            }
        }
        Ok(())
    }

    /// Takes the mark away when it has served.
    fn watch_mark(&self, memory: Bytes) -> Result<(), EnforcementError> {
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        if mark.as_mut().is_some_and(|mark| mark.has_served(memory, Instant::now())) {
            write(&self.folder.join("memory.high"), "max")?;
            *mark = None;
        }
        Ok(())
    }
}

/// The weight that stands for so much CPU: version 1's shares, mapped from [2, 262144] to [1, 10000] as Kubernetes
/// does it (KEP-2254).
fn weight(cpu: CpuMillis) -> u64 {
    let shares = (cpu.get().saturating_mul(1024) / 1000).clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}

fn io_limit(device: BlockDevice, limits: &Limits) -> String {
    let rate = limits.io.map_or_else(|| "max".to_owned(), |io| io.get().to_string());
    format!("{device} rbps={rate} wbps={rate}")
}

impl Cage for CgroupV2Cage {
    fn joining(&self) -> &[PathBuf] {
        &self.joining
    }

    fn sample(&self) -> Result<Option<Sample>, EnforcementError> {
        let file = |name: &str| self.folder.join(name);
        let (io_read, io_write) =
            read_if_present(&file("io.stat"))?.map(|text| statistics::io_v2(&text)).unwrap_or_default();
        let events = read(&file("memory.events"))?;
        let memory = statistics::actual_memory_v2(&read(&file("memory.stat"))?);
        self.watch_mark(memory)?;
        Ok(Some(Sample {
            memory,
            charged_at_most: read_number_if_present(&file("memory.peak"))?.map(Bytes),
            // There also without the controller.
            cpu: statistics::value(&read(&file("cpu.stat"))?, "usage_usec").map(Duration::from_micros),
            io_read,
            io_write,
            oom_kills: statistics::value(&events, "oom_kill").unwrap_or(0),
        }))
    }

    fn resize(&self, limits: &Limits) -> Result<(), EnforcementError> {
        self.limit_memory(limits.memory)?;
        self.limit_cpu(limits.cpu)?;
        self.limit_io(limits)
    }

    fn throttle(&self, cpu: Option<CpuMillis>) -> Result<(), EnforcementError> {
        if !self.settings.has_cpu {
            return Ok(());
        }
        let quota = cpu.map_or_else(|| "max".to_owned(), |cpu| quota_microseconds(cpu).to_string());
        write(&self.folder.join("cpu.max"), format_args!("{quota} {PERIOD}"))
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
    use forecastle_resources::BytesPerSecond;
    use std::path::Path;

    #[test]
    fn weights_are_those_of_kubernetes() {
        assert_eq!(weight(CpuMillis::ZERO), 1);
        assert_eq!(weight(CpuMillis::cores(1)), 39);
        assert_eq!(weight(CpuMillis(u64::MAX)), 10_000);
    }

    #[test]
    fn io_limits_are_written_as_the_kernel_reads_them() {
        let device = BlockDevice::of(Path::new("/proc")).unwrap();
        assert_eq!(device, None, "the kernel's own file systems cannot be limited");
        let limits = Limits { memory: None, cpu: CpuMillis::ZERO, io: Some(BytesPerSecond::mib(1)) };
        let device = BlockDevice::parse("8:16").unwrap();
        assert_eq!(io_limit(device, &limits), "8:16 rbps=1048576 wbps=1048576");
        assert_eq!(io_limit(device, &Limits { io: None, ..limits }), "8:16 rbps=max wbps=max");
    }

    #[test]
    fn without_a_memory_controller_it_is_unavailable_and_says_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cgroup.controllers"), "hugetlb misc\n").unwrap();
        let mounts = format!("41 31 0:38 / {} rw - cgroup2 cgroup2 rw\n", folder.path().display());
        let own = OwnCgroup::parse("0::/\n", &mounts);
        let error = CgroupV2::new(&own, &EnforcementOptions::default(), Vec::new(), WorkerId::new()).unwrap_err();
        assert!(error.to_string().contains("hugetlb, misc"), "{error}");
        assert!(!error.is_retryable());
    }

    /// The files that the kernel would make, and what is written to them.
    #[test]
    fn limits_and_statistics_use_the_files_of_version_2() {
        let folder = tempfile::tempdir().unwrap();
        let tenure = Tenure::begin(vec![folder.path().join(FOLDER)], WorkerId::new()).unwrap();
        let cgroup = folder.path().join("run");
        let cgroups = CgroupFolders::create(vec![cgroup.clone()], None, Arc::new(tenure)).unwrap();
        for (name, text) in [
            ("memory.max", ""),
            ("memory.high", ""),
            ("memory.current", "4099\n"),
            ("cpu.weight", ""),
            ("cpu.max", ""),
            ("io.max", ""),
            ("memory.stat", "anon 4096\nshmem 1\nkernel 2\nfile 900000\n"),
            ("memory.events", "oom 1\noom_kill 1\n"),
            ("memory.peak", "8192\n"),
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
            ("io.stat", "8:0 rbytes=3 wbytes=4\n"),
        ] {
            std::fs::write(cgroup.join(name), text).unwrap();
        }
        let settings = Settings {
            cpu: CpuMode::Quota,
            memory_headroom_percent: 10,
            most_processes: 64,
            devices: vec![BlockDevice::parse("8:0").unwrap()],
            has_cpu: true,
            has_io: true,
            has_pids: true,
        };
        let joining = vec![cgroup.join("cgroup.procs")];
        let cage = CgroupV2Cage { folder: cgroup.clone(), cgroups, joining, settings, mark: Mutex::new(None) };
        let limits = Limits { memory: Some(Bytes::mib(64)), cpu: CpuMillis(500), io: Some(BytesPerSecond::mib(2)) };
        cage.resize(&limits).unwrap();
        let text = |name: &str| std::fs::read_to_string(cgroup.join(name)).unwrap();
        assert_eq!(text("memory.max"), "67108864");
        assert_eq!(text("memory.high"), (67_108_864 - 67_108_864 / 100 * 10).to_string());
        assert_eq!(text("cpu.weight"), "20");
        assert_eq!(text("cpu.max"), "50000 100000");
        assert_eq!(text("io.max"), "8:0 rbps=2097152 wbps=2097152");
        let sample = cage.sample().unwrap().unwrap();
        let expected = Sample {
            memory: Bytes(4099),
            charged_at_most: Some(Bytes(8192)),
            cpu: Some(Duration::from_micros(1500)),
            io_read: Bytes(3),
            io_write: Bytes(4),
            oom_kills: 1,
        };
        assert_eq!(sample, expected);
        // Plain files keep a folder from being removed, which files of the kernel do not.
        std::fs::remove_dir_all(&cgroup).unwrap();
        assert_eq!(cage.kill_all().unwrap(), 0);
        cage.remove().unwrap();
    }
}
