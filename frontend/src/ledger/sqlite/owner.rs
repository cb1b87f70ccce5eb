//! One owner at a time: an advisory lock on a file beside the database, held for the life of the process.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::ledger::Error;

/// The lock. The operating system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Owner {
    _file: File,
}

impl Owner {
    /// Takes the lock of the ledger in `directory`, or says who has it.
    pub(super) fn acquire(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("owner.lock");
        let file_error = |context: &'static str| {
            let path = path.display().to_string();
            move |source| Error::File { context, path: path.clone(), source }
        };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(file_error("cannot open"))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            // Only for the message: whoever holds the lock may just be writing its process id.
            let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            return Err(Error::Owned {
                path: directory.display().to_string(),
                holder: if known { format!(" (process {})", holder.trim()) } else { String::new() },
            });
        }
        file.set_len(0).map_err(file_error("cannot write"))?;
        file.rewind().map_err(file_error("cannot write"))?;
        writeln!(file, "{}", std::process::id()).map_err(file_error("cannot write"))?;
        Ok(Self { _file: file })
    }
}
