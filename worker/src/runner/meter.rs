//! What a run uses, while it runs and in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forecastle_admission::UsageSample;
use forecastle_protos::v1;
use forecastle_resources::Bytes;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::adjustment::Follower;
use crate::enforcement::launcher::protocol::ChildUsage;
use crate::enforcement::{Cage, Mechanism, Sample};
use crate::execution::UsageNow;
use crate::runner::recent_rate::RecentRate;

/// Between the first samples, so that short runs are seen too.
pub(crate) const FIRST_INTERVAL: Duration = Duration::from_millis(5);

/// Between samples of a run that lasts. Reading them takes well under a millisecond.
pub(crate) const LAST_INTERVAL: Duration = Duration::from_millis(100);

/// Each interval is longer than the one before by this factor.
pub(crate) const GROWTH: f64 = 1.25;

/// Samples a cage in the background, until it is finished or dropped.
#[derive(Debug)]
pub struct Meter {
    metered: Metered,
    largest: Arc<AtomicU64>,
    sampling: DropGuard,
    task: JoinHandle<()>,
}

impl Meter {
    /// Starts sampling, for `follower` too. What the cage had measured `before` is not the run's. `out_of_memory` is
    /// cancelled as soon as a process was killed for memory.
    pub fn start(
        cage: Arc<dyn Cage>,
        before: Sample,
        now: UsageNow,
        out_of_memory: CancellationToken,
        follower: Option<Follower>,
    ) -> Self {
        let (largest, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let metered = Metered { cage, before };
        let sampling = sample(metered.clone(), Arc::clone(&largest), now, out_of_memory, stop.clone(), follower);
        let task = tokio::spawn(sampling);
        Self { metered, largest, sampling: stop.drop_guard(), task }
    }

    /// Stops sampling and takes the last sample, with everything that the processes used until they ended.
    pub async fn finish(self) -> Measured {
        let Self { metered, largest, sampling, task } = self;
        drop(sampling);
        if let Err(error) = task.await {
            tracing::error!(%error, "sampling a run failed");
        }
        let last = metered.take().await;
        let largest = largest.load(Ordering::Relaxed);
        Measured { largest: Bytes(last.map_or(largest, |last| largest.max(last.memory.get()))), last }
    }
}

async fn sample(
    metered: Metered,
    largest: Arc<AtomicU64>,
    now: UsageNow,
    out_of_memory: CancellationToken,
    stop: CancellationToken,
    mut follower: Option<Follower>,
) {
    let (started, mut recent) = (Instant::now(), RecentRate::default());
    let (mut pace, mut due) = (FIRST_INTERVAL, FIRST_INTERVAL);
    // What is advised is done to its end: only the waiting is cut short.
    while stop.run_until_cancelled(tokio::time::sleep(due)).await.is_some() {
        pace = pace.mul_f64(GROWTH).min(LAST_INTERVAL);
        let sample = metered.take().await;
        if let Some(sample) = &sample {
            let rates = recent.take(started.elapsed(), sample);
            now.set_memory(sample.memory);
            now.set_rates(rates.cpu, rates.io);
            largest.fetch_max(sample.memory.get(), Ordering::Relaxed);
            if sample.oom_kills > 0 {
                // Nothing that is done now would help it.
                out_of_memory.cancel();
                follower = None;
            }
        }
        due = match &mut follower {
            Some(follower) => follower.heed(sample.as_ref().map(usage).unwrap_or_default()).await.min(pace),
            None => pace,
        };
    }
}

/// What a sample says of use.
fn usage(sample: &Sample) -> UsageSample {
    let io = sample.io_read.saturating_add(sample.io_write);
    UsageSample { memory: Some(sample.memory), cpu: sample.cpu, io: Some(io) }
}

/// A cage, and what it had measured when the run began.
#[derive(Debug, Clone)]
struct Metered {
    cage: Arc<dyn Cage>,
    before: Sample,
}

impl Metered {
    async fn take(&self) -> Option<Sample> {
        let cage = Arc::clone(&self.cage);
        match tokio::task::spawn_blocking(move || cage.sample()).await {
            Ok(Ok(sample)) => sample.map(|sample| since(&self.before, sample)),
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a run could not be measured");
                None
            }
            Err(error) => {
                tracing::error!(%error, "measuring a run failed");
                None
            }
        }
    }
}

/// Sums begin with the run; memory that it found in its cage it uses like its own.
fn since(before: &Sample, sample: Sample) -> Sample {
    Sample {
        cpu: sample.cpu.map(|cpu| cpu.saturating_sub(before.cpu.unwrap_or_default())),
        io_read: sample.io_read.saturating_sub(before.io_read),
        io_write: sample.io_write.saturating_sub(before.io_write),
        ..sample
    }
}

/// What a cage has measured over a whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measured {
    /// The largest actual memory of any sample.
    pub largest: Bytes,
    /// The last sample, if there is any.
    pub last: Option<Sample>,
}

impl Measured {
    /// Brings together what the cage has measured and what the kernel said of the processes when they had ended.
    pub fn usage(&self, children: &ChildUsage, duration: Duration, mechanism: Mechanism) -> v1::Usage {
        let last = self.last.unwrap_or_default();
        // What a process had resident is a floor, for what lives between two samples. Some of that can be files that
        // others have paid for: a run never needed more than was ever charged to it.
        let floor = last
            .charged_at_most
            .map_or(children.largest_resident_bytes, |charged| children.largest_resident_bytes.min(charged.get()));
        let cpu = last.cpu.unwrap_or(Duration::from_micros(children.cpu_microseconds));
        v1::Usage {
            memory_bytes: self.largest.get().max(floor),
            cpu_ms: milliseconds(cpu),
            // Buffered writes reach the device later, on nobody's account with version 1; processes know of them.
            io_read_bytes: last.io_read.get().max(children.read_bytes),
            io_write_bytes: last.io_write.get().max(children.written_bytes),
            duration_ms: milliseconds(duration),
            source: mechanism.as_str().to_owned(),
        }
    }
}

/// Sums up what is told of one process after the other.
pub fn accumulate(sum: &mut ChildUsage, one: &ChildUsage) {
    sum.largest_resident_bytes = sum.largest_resident_bytes.max(one.largest_resident_bytes);
    sum.cpu_microseconds = sum.cpu_microseconds.saturating_add(one.cpu_microseconds);
    sum.read_bytes = sum.read_bytes.saturating_add(one.read_bytes);
    sum.written_bytes = sum.written_bytes.saturating_add(one.written_bytes);
}

/// Whole milliseconds.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHILDREN: ChildUsage = ChildUsage {
        largest_resident_bytes: 50 << 20,
        cpu_microseconds: 2_500_000,
        read_bytes: 512,
        written_bytes: 4096,
    };

    fn usage(measured: Measured) -> v1::Usage {
        measured.usage(&CHILDREN, Duration::from_secs(3), Mechanism::CgroupV1)
    }

    #[test]
    fn what_the_children_had_is_a_floor_but_never_more_than_was_charged() {
        let last = Sample { charged_at_most: Some(Bytes::mib(60)), ..Sample::default() };
        let memory = |largest, last| Bytes(usage(Measured { largest, last: Some(last) }).memory_bytes);
        assert_eq!(memory(Bytes::mib(10), last), Bytes::mib(50));
        assert_eq!(memory(Bytes::mib(55), last), Bytes::mib(55));
        assert_eq!(memory(Bytes::mib(10), Sample { charged_at_most: Some(Bytes::mib(20)), ..last }), Bytes::mib(20));
        assert_eq!(memory(Bytes::mib(10), Sample { charged_at_most: None, ..last }), Bytes::mib(50));
    }

    #[test]
    fn what_was_used_before_the_run_is_not_the_runs() {
        let sample = |cpu, io, memory| Sample {
            memory: Bytes(memory),
            cpu: Some(Duration::from_millis(cpu)),
            io_read: Bytes(io),
            io_write: Bytes(io),
            ..Sample::default()
        };
        assert_eq!(since(&sample(30, 7, 100), sample(50, 9, 120)), sample(20, 2, 120));
        assert_eq!(since(&Sample::default(), sample(50, 9, 120)), sample(50, 9, 120));
    }

    #[test]
    fn without_samples_the_children_are_all_there_is() {
        let usage = usage(Measured::default());
        assert_eq!((usage.memory_bytes, usage.cpu_ms), (50 << 20, 2500));
        assert_eq!((usage.io_read_bytes, usage.io_write_bytes, usage.duration_ms), (512, 4096, 3000));
    }

    #[test]
    fn the_cages_cpu_counts_if_it_has_one() {
        let last = Sample { cpu: Some(Duration::from_millis(70)), io_read: Bytes(9999), ..Sample::default() };
        let usage = usage(Measured { last: Some(last), ..Measured::default() });
        assert_eq!((usage.cpu_ms, usage.io_read_bytes), (70, 9999));
    }

    #[test]
    fn processes_that_follow_each_other_add_up_except_in_memory() {
        let mut sum = CHILDREN;
        accumulate(&mut sum, &ChildUsage { largest_resident_bytes: 1, ..CHILDREN });
        assert_eq!((sum.largest_resident_bytes, sum.cpu_microseconds, sum.read_bytes), (50 << 20, 5_000_000, 1024));
    }
}
