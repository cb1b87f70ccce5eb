//! The CPU time of a task that shares its threads with others.
//!
//! A future runs only while it is polled, on one thread; so its CPU time is the sum, over all polls, of what that
//! thread's clock (`CLOCK_THREAD_CPUTIME_ID`) advanced. Blocking work is measured the same way on its own thread.
//! What a task spawns by itself is not seen.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A sum of CPU time. Cheap to clone; clones share it.
#[derive(Debug, Clone, Default)]
pub struct CpuMeter {
    nanoseconds: Arc<AtomicU64>,
}

impl CpuMeter {
    /// Nothing measured yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sum so far.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    /// Runs `work` on this thread and adds the CPU time that it took, also if it panics.
    pub fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        let _running = Running { meter: self, started: thread_cpu_time() };
        work()
    }

    /// The same future, measured whenever it is polled.
    pub fn metered<F: Future>(&self, future: F) -> Metered<F> {
        Metered { future: Box::pin(future), meter: self.clone() }
    }
}

/// Adds what passed when it is dropped.
struct Running<'a> {
    meter: &'a CpuMeter,
    started: Duration,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let spent = thread_cpu_time().saturating_sub(self.started);
        let nanoseconds = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        self.meter.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

fn thread_cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// A future whose CPU time is measured.
#[derive(Debug)]
pub struct Metered<F> {
    future: Pin<Box<F>>,
    meter: CpuMeter,
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, meter } = &mut *self;
        meter.measure(|| future.as_mut().poll(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burn(at_least: Duration) {
        let started = thread_cpu_time();
        while thread_cpu_time().saturating_sub(started) < at_least {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn polls_are_measured_and_waiting_is_not() {
        let meter = CpuMeter::new();
        let (wake, woken) = tokio::sync::oneshot::channel::<()>();
        let waiting = tokio::spawn(meter.metered(async move {
            burn(Duration::from_millis(20));
            woken.await.ok();
            burn(Duration::from_millis(20));
        }));
        tokio::task::spawn_blocking(|| burn(Duration::from_millis(300))).await.unwrap();
        wake.send(()).unwrap();
        waiting.await.unwrap();
        let total = meter.total();
        assert!((Duration::from_millis(40)..Duration::from_millis(200)).contains(&total), "{total:?}");
    }

    #[test]
    fn work_that_panics_is_measured_too() {
        let meter = CpuMeter::new();
        let clone = meter.clone();
        let panicked = std::thread::spawn(move || {
            clone.measure(|| {
                burn(Duration::from_millis(10));
                panic!("as it should");
            });
        });
        assert!(panicked.join().is_err());
        assert!(meter.total() >= Duration::from_millis(10));
    }
}
