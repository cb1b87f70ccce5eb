//! What the machine has, as far as this process may use it: the default capacity.

use std::path::{Path, PathBuf};

use forecastle_resources::{Bytes, CpuMillis, ResourceVector};

use crate::enforcement::control_file::{read, read_if_present, read_number_if_present};
use crate::enforcement::error::EnforcementError;
use crate::enforcement::own_cgroup::{Hierarchy, OwnCgroup};
use crate::enforcement::statistics;

/// The part of memory that is left to everything else: the worker, its launchers, the page cache.
const HEADROOM: f64 = 0.1;

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Readings {
    /// Cores that the process may run on.
    cores: u64,
    /// The smallest quota of its cgroups.
    cpu_quota: Option<CpuMillis>,
    /// What could be had now.
    memory: Bytes,
}

/// CPU and memory that shards can reserve here, unless the operator says otherwise: the cores of this process's
/// affinity or the quota of its cgroup, and nine tenths of the memory that is available now, or that its cgroup still
/// allows. Nothing is said of I/O, which cannot be found out without trying.
pub fn detect() -> Result<ResourceVector, EnforcementError> {
    let own = OwnCgroup::detect()?;
    let affinity = rustix::thread::sched_getaffinity(None)
        .map_err(|error| EnforcementError::control("ask for", "the affinity of this process", error))?;
    Ok(capacity(Readings { cores: affinity.count().into(), cpu_quota: cpu_quota(&own)?, memory: memory_now()? }))
}

/// Scratch disk that runs can be given below `root`: what is free for this user on the file system of that folder, or of
/// the nearest one above it that exists.
pub fn scratch_now(root: &Path) -> Result<Bytes, EnforcementError> {
    let there = root.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new(""));
    // Above a relative path there is the working folder.
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    let found =
        rustix::fs::statvfs(there).map_err(|error| EnforcementError::control("ask for the space on", there, error))?;
    // Whole mebibytes, as of memory.
    Ok(Bytes::mib(found.f_bavail.saturating_mul(found.f_frsize) >> 20))
}

/// Memory that could be had now without swapping: the machine's, or what this process's cgroup still allows.
pub fn memory_now() -> Result<Bytes, EnforcementError> {
    let meminfo = PathBuf::from("/proc/meminfo");
    let available = memory_available(&read(&meminfo)?)
        .ok_or_else(|| EnforcementError::Unexpected { path: meminfo, reason: "it has no MemAvailable".to_owned() })?;
    Ok(memory_left(&OwnCgroup::detect()?)?.map_or(available, |left| left.min(available)))
}

fn capacity(readings: Readings) -> ResourceVector {
    let cpu = CpuMillis::cores(readings.cores.max(1));
    let cpu = readings.cpu_quota.map_or(cpu, |quota| quota.min(cpu));
    // Whole mebibytes: a rounder number is easier to talk about.
    let usable = readings.memory.scale(1.0 - HEADROOM).get() >> 20;
    ResourceVector::new(cpu, Bytes::mib(usable))
}

fn memory_available(meminfo: &str) -> Option<Bytes> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse().ok().map(Bytes::kib)
}

/// A cgroup and those above it that can be seen.
fn upwards(hierarchy: &Hierarchy) -> impl Iterator<Item = &Path> {
    hierarchy.own.ancestors().take_while(|folder| folder.starts_with(&hierarchy.mount))
}

fn cpu_quota(own: &OwnCgroup) -> Result<Option<CpuMillis>, EnforcementError> {
    let mut least: Option<CpuMillis> = None;
    let mut consider = |quota: Option<CpuMillis>| {
        least = match (least, quota) {
            (Some(least), Some(quota)) => Some(least.min(quota)),
            (least, quota) => least.or(quota),
        };
    };
    for folder in own.v2.iter().flat_map(upwards) {
        consider(read_if_present(&folder.join("cpu.max"))?.as_deref().and_then(quota_v2));
    }
    for folder in own.v1.get("cpu").into_iter().flat_map(upwards) {
        let quota = read_if_present(&folder.join("cpu.cfs_quota_us"))?;
        let period = read_number_if_present(&folder.join("cpu.cfs_period_us"))?;
        // -1 is no quota.
        let quota = quota.and_then(|text| text.trim().parse::<u64>().ok());
        consider(quota.zip(period).and_then(|(quota, period)| quota_of(quota, period)));
    }
    Ok(least)
}

/// `cpu.max`: quota and period in microseconds, or `max` and the period.
fn quota_v2(text: &str) -> Option<CpuMillis> {
    let (quota, period) = text.trim().split_once(' ')?;
    quota_of(quota.parse().ok()?, period.parse().ok()?)
}

fn quota_of(quota: u64, period: u64) -> Option<CpuMillis> {
    quota.saturating_mul(1000).checked_div(period).map(|millis| CpuMillis(millis.max(1)))
}

fn memory_left(own: &OwnCgroup) -> Result<Option<Bytes>, EnforcementError> {
    let mut least: Option<Bytes> = None;
    for folder in own.v2.iter().flat_map(upwards) {
        let Some(limit) = read_number_if_present(&folder.join("memory.max"))? else { continue };
        let used = statistics::actual_memory_v2(&read(&folder.join("memory.stat"))?);
        let left = Bytes(limit).saturating_sub(used);
        least = Some(least.map_or(left, |least| least.min(left)));
    }
    for folder in own.v1.get("memory").into_iter().flat_map(upwards) {
        let Some(limit) = read_number_if_present(&folder.join("memory.limit_in_bytes"))? else { continue };
        let kernel = read_number_if_present(&folder.join("memory.kmem.usage_in_bytes"))?;
        let used = statistics::actual_memory_v1(&read(&folder.join("memory.stat"))?, kernel);
        let left = Bytes(limit).saturating_sub(used);
        least = Some(least.map_or(left, |least| least.min(left)));
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Readings = Readings { cores: 8, cpu_quota: None, memory: Bytes::gib(10) };

    #[test]
    fn the_smaller_of_machine_and_cgroup_counts() {
        let vector = |cpu, memory| ResourceVector::new(cpu, memory);
        assert_eq!(capacity(MACHINE), vector(CpuMillis::cores(8), Bytes::mib(9216)));
        let limited = Readings { cpu_quota: Some(CpuMillis(1500)), memory: Bytes::gib(1), ..MACHINE };
        assert_eq!(capacity(limited), vector(CpuMillis(1500), Bytes::mib(921)));
        let generous = Readings { cpu_quota: Some(CpuMillis::cores(64)), ..MACHINE };
        assert_eq!(capacity(generous), capacity(MACHINE));
    }

    #[test]
    fn quotas_are_read() {
        assert_eq!(quota_v2("150000 100000\n"), Some(CpuMillis(1500)));
        assert_eq!(quota_v2("max 100000\n"), None);
        assert_eq!(quota_v2("1 0"), None);
        assert_eq!(memory_available("MemTotal: 9 kB\nMemAvailable:  1024 kB\n"), Some(Bytes::mib(1)));
        assert_eq!(memory_available(""), None);
    }

    #[test]
    fn scratch_is_what_is_free_where_its_folder_will_be() {
        let folder = tempfile::tempdir().unwrap();
        let free = scratch_now(folder.path()).unwrap();
        assert!(free >= Bytes::mib(1), "{free}");
        // Others write meanwhile, but not a tenth of the disk.
        let below = scratch_now(&folder.path().join("to/be/made")).unwrap();
        assert!(below >= free.scale(0.9) && below <= free.scale(1.1), "{below}, and {free} above it");
        assert!(scratch_now(Path::new("nowhere/yet")).unwrap() >= Bytes::mib(1));
    }

    #[test]
    fn this_machine_has_something() {
        let capacity = detect().unwrap();
        assert!(capacity.cpu >= CpuMillis(1) && capacity.memory >= Bytes::mib(1), "{capacity}");
    }
}
