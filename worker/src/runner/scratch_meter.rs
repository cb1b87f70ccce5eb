//! What a run has on scratch disk, while it runs.
//!
//! Only runs that reserved some are measured. What a run has deleted and keeps open is not seen, nor what it wrote and
//! deleted between two measurements.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forecastle_resources::Bytes;
use tokio::sync::SetOnce;
use tokio_util::task::AbortOnDropHandle;

use crate::execution::UsageNow;
use crate::runner::meter::{FIRST_INTERVAL, GROWTH, LAST_INTERVAL};

/// Measuring takes at most one part in so many of the time: a folder of many files is measured less often.
const PARTS: u32 = 20;

/// The unit of a file's allocated blocks, whatever its file system's are.
const BLOCK: u64 = 512;

/// More scratch disk than was reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overuse {
    /// What was used.
    pub used: Bytes,
    /// What was reserved.
    pub reserved: Bytes,
}

impl fmt::Display for Overuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { used, reserved } = self;
        write!(
            f,
            "it was stopped because it used {used} of scratch disk and had reserved {reserved}: let it write less, or \
             raise `reserve.scratch` of its unit in the catalogue"
        )
    }
}

/// Measures a run's scratch folder in the background, until it is dropped.
#[derive(Debug)]
pub struct ScratchMeter {
    overuse: Arc<SetOnce<Overuse>>,
    _measuring: Option<AbortOnDropHandle<()>>,
}

impl ScratchMeter {
    /// Starts to measure `folder`, if some is reserved; `now` is told what is there.
    pub fn start(folder: &Path, reserved: Bytes, now: UsageNow) -> Self {
        let overuse = Arc::new(SetOnce::new());
        let measuring = (reserved > Bytes::ZERO).then(|| {
            let measuring = measure(folder.to_owned(), reserved, now, Arc::clone(&overuse));
            AbortOnDropHandle::new(tokio::spawn(measuring))
        });
        Self { overuse, _measuring: measuring }
    }

    /// Set as soon as more was seen than is reserved.
    pub fn overuse(&self) -> Arc<SetOnce<Overuse>> {
        Arc::clone(&self.overuse)
    }
}

async fn measure(folder: PathBuf, reserved: Bytes, now: UsageNow, overuse: Arc<SetOnce<Overuse>>) {
    let mut pace = FIRST_INTERVAL;
    let mut took = Duration::ZERO;
    loop {
        tokio::time::sleep(pace.max(took * PARTS)).await;
        pace = pace.mul_f64(GROWTH).min(LAST_INTERVAL);
        let (started, measured) = (Instant::now(), folder.clone());
        let used = match tokio::task::spawn_blocking(move || allocated_below(&measured)).await {
            Ok(used) => used,
            Err(error) => {
                tracing::error!(%error, "measuring a scratch folder failed");
                return;
            }
        };
        took = started.elapsed();
        now.set_scratch(used);
        if used > reserved {
            // Nobody else sets it.
            let _ = overuse.set(Overuse { used, reserved });
            return;
        }
    }
}

/// What files and folders below `folder` take on the disk. A file with several names counts once; links are not
/// followed. What vanishes meanwhile, or may not be read, counts nothing. Blocks.
fn allocated_below(folder: &Path) -> Bytes {
    let (mut sum, mut counted, mut folders) = (0_u64, HashSet::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.nlink() > 1 && !counted.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            sum = sum.saturating_add(metadata.blocks().saturating_mul(BLOCK));
        }
    }
    Bytes(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_counts_once_and_holes_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("sub/sub");
        fs::create_dir_all(&below).unwrap();
        let empty = allocated_below(folder.path());
        assert!(empty < Bytes::mib(1), "{empty}");
        fs::write(below.join("file"), vec![7_u8; 4 << 20]).unwrap();
        fs::hard_link(below.join("file"), folder.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("everything")).unwrap();
        fs::File::create(folder.path().join("hole")).unwrap().set_len(1 << 40).unwrap();
        let used = allocated_below(folder.path()).saturating_sub(empty);
        assert!(used >= Bytes::mib(4) && used < Bytes::mib(5), "{used}");
        assert_eq!(allocated_below(&folder.path().join("missing")), Bytes::ZERO);
    }

    #[tokio::test]
    async fn more_than_is_reserved_is_told_and_nothing_of_runs_that_reserve_none() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), vec![7_u8; 2 << 20]).unwrap();
        let now = UsageNow::default();
        let unmeasured = ScratchMeter::start(folder.path(), Bytes::ZERO, now.clone());
        let meter = ScratchMeter::start(folder.path(), Bytes::mib(1), UsageNow::default());
        let told = meter.overuse();
        let overuse = told.wait().await;
        assert_eq!(overuse.reserved, Bytes::mib(1));
        assert!(overuse.used >= Bytes::mib(2), "{overuse}");
        assert_eq!((unmeasured.overuse().get(), now.scratch()), (None, Bytes::ZERO));
        let enough = ScratchMeter::start(folder.path(), Bytes::mib(64), now.clone());
        while now.scratch() == Bytes::ZERO {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(enough.overuse().get(), None);
    }
}
