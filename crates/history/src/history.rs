//! The handle on one database of history.

use std::fmt;

use crate::connection::Connection;
use crate::migrations::{self, MigrationReport};
use crate::{Error, HistoryOptions, HistoryWriter, metric_definitions, retention};

/// One database in ClickHouse. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct History {
    pub(crate) connection: Connection,
    options: HistoryOptions,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("options", &self.options).finish_non_exhaustive()
    }
}

impl History {
    /// Checks the options and describes the metrics. Connects only when used, so ClickHouse may be down.
    pub fn new(options: HistoryOptions) -> Result<Self, Error> {
        metric_definitions::describe();
        Ok(Self { connection: Connection::new(&options)?, options })
    }

    /// The version of ClickHouse, if it answers and takes the user. The database need not be there.
    pub async fn ping(&self) -> Result<String, Error> {
        self.connection.fetch_one("ask for the version", self.connection.server().query_raw("SELECT version()")).await
    }

    /// Makes the database if it is not there, applies the migrations that are missing and sets the retention. Safe to
    /// call again, and by several programs at once.
    pub async fn migrate(&self) -> Result<MigrationReport, Error> {
        let report = migrations::migrate(&self.connection).await?;
        retention::apply(&self.connection, &self.options).await?;
        Ok(report)
    }

    /// Writes batches.
    pub fn writer(&self) -> HistoryWriter {
        HistoryWriter::new(self.connection.clone())
    }
}
