//! Connections that only read, off the runtime's threads.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};

use super::during;
use crate::ledger::Error;

/// A few read-only connections, opened as they are needed and used again.
#[derive(Clone)]
pub(super) struct Reader {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// Idle connections that are kept.
const KEPT: usize = 4;

impl Reader {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: Arc::new(path.to_owned()), idle: Arc::default() }
    }

    /// Runs a query on a thread for blocking work, in one read transaction.
    pub(super) async fn read<T, F>(&self, query: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            let idle = this.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match idle {
                Some(connection) => connection,
                None => open(&this.path)?,
            };
            connection.execute_batch("BEGIN").map_err(during("beginning to read"))?;
            let result = query(&connection);
            connection.execute_batch("COMMIT").map_err(during("ending to read"))?;
            let mut idle = this.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push(connection);
            }
            result
        })
        .await
        .map_err(|_| Error::Closed)?
    }
}

/// Opens the database for reading alone.
pub(super) fn open(path: &Path) -> Result<Connection, Error> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(during("opening it for reading"))?;
    connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(during("setting up a reader"))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}
