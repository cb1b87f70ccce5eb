//! The file from which a command reads what it may use now.

use std::io;
use std::path::{Path, PathBuf};

use forecastle_resources::ResourceVector;
use serde::Serialize;

/// Its content, as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    cpu_millis: u64,
    memory_bytes: u64,
    io_bytes_per_second: u64,
    scratch_bytes: u64,
    threads: u64,
}

/// A file that always holds a whole allocation: each one replaces the last at once.
#[derive(Debug, Clone)]
pub struct AllocationFile {
    path: PathBuf,
}

impl AllocationFile {
    /// The file at `path`, which [`Self::write`] makes. Beside it there may be one with `.next` appended.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the content. Blocks.
    pub fn write(&self, vector: &ResourceVector) -> io::Result<()> {
        let content = Content {
            cpu_millis: vector.cpu.get(),
            memory_bytes: vector.memory.get(),
            io_bytes_per_second: vector.io.get(),
            scratch_bytes: vector.scratch.get(),
            threads: threads(vector),
        };
        let mut next = self.path.clone().into_os_string();
        next.push(".next");
        std::fs::write(&next, serde_json::to_vec(&content)?)?;
        std::fs::rename(&next, &self.path)
    }
}

/// Threads that make sense: the cores, rounded up, at least one.
pub(crate) fn threads(vector: &ResourceVector) -> u64 {
    vector.cpu.get().div_ceil(1000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_resources::{Bytes, CpuMillis};

    #[test]
    fn each_allocation_replaces_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let file = AllocationFile::new(folder.path().join("allocation.json"));
        for (memory, cpu) in [(7, 1), (9, 1500)] {
            file.write(&ResourceVector::new(CpuMillis(cpu), Bytes(memory))).unwrap();
        }
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text, r#"{"cpuMillis":1500,"memoryBytes":9,"ioBytesPerSecond":0,"scratchBytes":0,"threads":2}"#);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
