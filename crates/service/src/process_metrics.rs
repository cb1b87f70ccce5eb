//! What this process uses: memory, descriptors, threads and CPU time, sampled from `/proc/self`.

use std::io;
use std::time::Duration;

use forecastle_resources::Bytes;
use metrics::gauge;
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

use crate::metric_definitions::{
    PROCESS_CPU_SECONDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT_MEMORY_BYTES, PROCESS_THREADS,
};

/// What this process uses at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessSample {
    /// Resident memory.
    pub resident: Bytes,
    /// Open file descriptors.
    pub open_files: u64,
    /// Threads.
    pub threads: u64,
    /// User and system time since it started.
    pub cpu: Duration,
}

impl ProcessSample {
    /// Reads `/proc/self`. A few system calls that wait for no disk, so it may run on a runtime's thread.
    pub fn take() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        // Listing the directory takes a descriptor itself.
        let open_files = (std::fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1);
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let (seconds, nanoseconds) = (u64::try_from(cpu.tv_sec), u32::try_from(cpu.tv_nsec));
        Ok(Self {
            resident: Bytes::kib(status_number(&status, "VmRSS:")?),
            open_files,
            threads: status_number(&status, "Threads:")?,
            cpu: Duration::new(seconds.unwrap_or_default(), nanoseconds.unwrap_or_default()),
        })
    }

    fn record(&self) {
        gauge!(PROCESS_RESIDENT_MEMORY_BYTES).set(self.resident.0 as f64);
        gauge!(PROCESS_OPEN_FDS).set(self.open_files as f64);
        gauge!(PROCESS_THREADS).set(self.threads as f64);
        gauge!(PROCESS_CPU_SECONDS).set(self.cpu.as_secs_f64());
    }
}

/// The number after `label` in `/proc/<pid>/status` (its unit, kB, is KiB).
fn status_number(status: &str, label: &str) -> io::Result<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(label)?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/self/status has no {label}")))
}

/// Sets the gauges of the process every `interval` until `stop`. Where `/proc` cannot be read it says so once and
/// waits for `stop`.
pub async fn run(interval: Duration, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(100)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        match ProcessSample::take() {
            Ok(sample) => sample.record(),
            Err(error) => {
                tracing::warn!(%error, "no metrics of the process: cannot read /proc/self");
                return stop.cancelled().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_memory_that_is_touched_and_files_that_are_opened() {
        let before = ProcessSample::take().unwrap();
        let memory = vec![1u8; 64 << 20];
        let files: Vec<_> = (0..100).map(|_| std::fs::File::open("/proc/self/status").unwrap()).collect();
        let after = ProcessSample::take().unwrap();
        // Other tests of this process allocate, open and close meanwhile.
        assert!(after.resident >= before.resident.saturating_add(Bytes::mib(32)), "{before:?} {after:?}");
        assert!(after.open_files >= before.open_files + 50, "{before:?} {after:?}");
        assert!(after.threads >= 1 && after.cpu >= before.cpu);
        drop((std::hint::black_box(memory), files));
    }

    #[test]
    fn a_status_without_the_line_is_an_error() {
        assert_eq!(status_number("VmRSS:\t  12 kB\n", "VmRSS:").unwrap(), 12);
        assert!(status_number("VmRSS:\t many kB\n", "VmRSS:").is_err());
    }
}
