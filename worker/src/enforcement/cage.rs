//! The limits and the meter of one run.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, ResourceVector};

use crate::enforcement::error::EnforcementError;
use crate::enforcement::options::Mechanism;

/// What a run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory: a hard limit. What the page cache takes of it, the kernel takes back before it kills.
    pub memory: Option<Bytes>,
    /// CPU.
    pub cpu: CpuMillis,
    /// I/O rate, for reading and for writing each.
    pub io: Option<BytesPerSecond>,
}

impl Limits {
    /// Those of a reservation. Memory and I/O that are zero are not limited.
    pub fn of(vector: &ResourceVector) -> Self {
        Self {
            memory: (vector.memory > Bytes::ZERO).then_some(vector.memory),
            cpu: vector.cpu,
            io: (vector.io > BytesPerSecond::ZERO).then_some(vector.io),
        }
    }
}

/// What a cage measures. Memory is of now; the rest is a sum since the cage was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// *Actual* memory: anonymous, shared and the kernel's own on behalf of the run; no page cache.
    pub memory: Bytes,
    /// The most memory that was ever charged, page cache included: no run needed more than that. Unknown on old kernels.
    pub charged_at_most: Option<Bytes>,
    /// User and system time. `None` where it is not measured.
    pub cpu: Option<Duration>,
    /// Bytes read from block devices.
    pub io_read: Bytes,
    /// Bytes written to block devices.
    pub io_write: Bytes,
    /// Processes that were killed for memory.
    pub oom_kills: u64,
}

/// Makes cages.
pub trait Enforcer: Send + Sync + fmt::Debug {
    /// How.
    fn mechanism(&self) -> Mechanism;

    /// An empty cage with these limits. Its name is that of a folder: of a run, or of what is made ready for one. Blocks
    /// for a millisecond or so.
    fn create(&self, name: &str, limits: &Limits) -> Result<Box<dyn Cage>, EnforcementError>;

    /// Kills and removes what dead workers left below the same base; answers how many folders of theirs are gone.
    /// Blocks, for seconds if there is much.
    fn sweep(&self) -> usize {
        0
    }
}

/// The limits and the meter of one run. Its methods block, each for about a millisecond at most.
///
/// Dropping it kills what is in it and removes it, in the background if the kernel needs time; a run that ends as it
/// should calls [`dismantle`] and knows when that is done.
pub trait Cage: Send + Sync + fmt::Debug {
    /// The files to each of which a process writes `0` to be inside.
    fn joining(&self) -> &[PathBuf];

    /// Measures. `None` where there is nothing to measure before the processes have ended.
    fn sample(&self) -> Result<Option<Sample>, EnforcementError>;

    /// Changes the limits of what runs. Fails if memory would have to shrink below what cannot be reclaimed.
    fn resize(&self, limits: &Limits) -> Result<(), EnforcementError>;

    /// Holds CPU to a quota, whatever the limits say; `None` lifts that, and leaves it to [`Self::resize`] to set what
    /// was there before.
    fn throttle(&self, cpu: Option<CpuMillis>) -> Result<(), EnforcementError>;

    /// Kills everything inside, once; answers how many processes there were. Those that were being made are only met
    /// by the next call: the cage is empty when the answer is zero.
    fn kill_all(&self) -> Result<usize, EnforcementError>;

    /// Removes the cage. Fails while a process is inside. Removing it twice does nothing.
    fn remove(&self) -> Result<(), EnforcementError>;
}

/// True if the kernel has killed something in `cage` for memory.
pub async fn is_out_of_memory(cage: &Arc<dyn Cage>) -> bool {
    let cage = Arc::clone(cage);
    matches!(blocking(move || cage.sample()).await, Ok(Some(sample)) if sample.oom_kills > 0)
}

/// Kills all that is in `cage` until it is empty.
pub async fn empty(cage: &Arc<dyn Cage>, within: Duration) -> Result<(), EnforcementError> {
    let mut pause = Pause::until(Instant::now() + within);
    loop {
        let cage = Arc::clone(cage);
        match blocking(move || cage.kill_all()).await {
            Ok(0) => return Ok(()),
            Ok(left) if pause.is_over() => {
                let why = std::io::Error::other(format!("{left} processes do not die"));
                return Err(EnforcementError::control("empty", "the cage of a run", why));
            }
            Err(error) if pause.is_over() => return Err(error),
            Ok(_) | Err(_) => tokio::time::sleep(pause.next()).await,
        }
    }
}

/// Kills all that is in `cage` and removes it.
pub async fn dismantle(cage: &Arc<dyn Cage>, within: Duration) -> Result<(), EnforcementError> {
    let mut pause = Pause::until(Instant::now() + within);
    empty(cage, within).await?;
    loop {
        let removed = Arc::clone(cage);
        match blocking(move || removed.remove()).await {
            Ok(()) => return Ok(()),
            Err(error) if pause.is_over() => return Err(error),
            // The kernel is still taking the last process apart.
            Err(_) => tokio::time::sleep(pause.next()).await,
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EnforcementError> + Send + 'static,
) -> Result<T, EnforcementError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(EnforcementError::control("watch", "the cage of a run", std::io::Error::other(error)))
    })
}

/// Pauses that grow, until a deadline.
#[derive(Debug)]
pub(crate) struct Pause {
    next: Duration,
    end: Instant,
}

impl Pause {
    pub(crate) fn until(end: Instant) -> Self {
        Self { next: Duration::from_micros(500), end }
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    pub(crate) fn next(&mut self) -> Duration {
        let next = self.next;
        self.next = (next * 2).min(Duration::from_millis(50));
        next
    }
}
