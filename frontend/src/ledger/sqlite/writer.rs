//! The one thread that writes, with group commit: whatever arrives while a commit is under way shares the next one.

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::during;
use crate::ledger::Error;

/// The most jobs in one commit.
const GROUP: usize = 256;

/// The most jobs that wait; callers wait beyond.
const QUEUE: usize = 1024;

/// A change to make, and somebody who waits for it.
trait Job: Send {
    /// Makes the change inside the open transaction.
    fn run(&mut self, connection: &Connection) -> Result<(), ()>;
    /// Answers, after the commit (`None`) or its failure.
    fn answer(self: Box<Self>, failed: Option<Error>);
}

struct Change<T, F> {
    make: Option<F>,
    result: Option<Result<T, Error>>,
    answer: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> Job for Change<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, Error> + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), ()> {
        let Some(change) = self.make.take() else { return Err(()) };
        let result = change(connection);
        let made = if result.is_ok() { Ok(()) } else { Err(()) };
        self.result = Some(result);
        made
    }

    fn answer(self: Box<Self>, failed: Option<Error>) {
        let result = match (self.result, failed) {
            // What a change that was not made has to say is more to the point than the commit's failure.
            (Some(Err(error)), _) | (_, Some(error)) => Err(error),
            (Some(Ok(value)), None) => Ok(value),
            (None, None) => Err(Error::Closed),
        };
        // Whoever asked may have gone; the change stands all the same.
        drop(self.answer.send(result));
    }
}

/// The handle: cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
}

impl Writer {
    /// Starts the thread, which owns `connection` and keeps `keep` alive until it ends.
    pub(super) fn start(
        connection: Connection,
        keep: impl Send + 'static,
    ) -> Result<(Self, std::thread::JoinHandle<()>), std::io::Error> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("ledger-writer".to_owned()).spawn(move || {
            write(&connection, queue);
            drop(connection);
            drop(keep);
        })?;
        Ok((Self { jobs }, thread))
    }

    /// Makes a change; answers once it is on disk.
    pub(super) async fn write<T, F>(&self, change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(Change { make: Some(change), result: None, answer });
        self.jobs.send(job).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

fn write(connection: &Connection, mut queue: mpsc::Receiver<Box<dyn Job>>) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(job) = queue.try_recv()
        {
            group.push(job);
        }
        metrics::histogram!(crate::metric_definitions::LEDGER_GROUP_SIZE).record(group.len() as f64);
        let started = std::time::Instant::now();
        let failed = commit(connection, &mut group).err();
        metrics::histogram!(crate::metric_definitions::LEDGER_COMMIT_SECONDS).record(started.elapsed().as_secs_f64());
        for job in group {
            job.answer(failed.as_ref().map(again));
        }
    }
}

/// Runs a group in one transaction, each job in a savepoint of its own, so that one that fails takes no other along.
fn commit(connection: &Connection, group: &mut [Box<dyn Job>]) -> Result<(), rusqlite::Error> {
    let outcome = (|| {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for job in group {
            connection.execute_batch("SAVEPOINT job")?;
            let made = job.run(connection);
            if connection.is_autocommit() {
                // SQLite rolled the whole transaction back by itself, as it may when the disk is full.
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL),
                    Some("the transaction was rolled back".to_owned()),
                ));
            }
            if made.is_err() {
                connection.execute_batch("ROLLBACK TO job")?;
            }
            connection.execute_batch("RELEASE job")?;
        }
        connection.execute_batch("COMMIT")
    })();
    if let Err(error) = &outcome {
        tracing::error!(%error, "the ledger could not commit");
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the ledger could not roll back");
        }
    }
    outcome
}

/// The same error for another member of the group (SQLite's errors cannot be cloned).
fn again(error: &rusqlite::Error) -> Error {
    let copy = match error {
        rusqlite::Error::SqliteFailure(code, text) => rusqlite::Error::SqliteFailure(*code, text.clone()),
        other => rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR),
            Some(other.to_string()),
        ),
    };
    during("committing")(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn count(connection: &Connection) -> i64 {
        connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    #[tokio::test]
    async fn changes_that_arrive_during_a_commit_share_the_next_one_and_one_that_fails_takes_no_other_along() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER PRIMARY KEY)").unwrap();
        let reader = Connection::open(&path).unwrap();
        let (writer, thread) = Writer::start(connection, ()).unwrap();
        let insert = |connection: &Connection, n: i64| {
            connection.execute("INSERT INTO t VALUES (?1)", [n]).map(drop).map_err(during("inserting"))
        };
        // The first one holds up the thread until all others wait.
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let first = writer.write(move |connection| {
            insert(connection, 0)?;
            wait.recv().unwrap();
            Ok(0)
        });
        let others = (1..=20).map(|n| {
            let path = path.clone();
            writer.write(move |connection| {
                insert(connection, n)?;
                if n == 7 {
                    return Err(Error::Closed);
                }
                // What another connection sees is what has been committed.
                Ok(count(&Connection::open(&path).map_err(during("opening"))?))
            })
        });
        // Polled last, when all others have been sent.
        let release = async { go.send(()).unwrap() };
        let (first, others, ()) = tokio::join!(first, futures::future::join_all(others), release);
        first.unwrap();
        let mut seen = BTreeSet::new();
        for (n, answer) in (1..=20).zip(others) {
            match answer {
                Ok(committed) => drop(seen.insert(committed)),
                Err(error) => assert!(n == 7 && matches!(error, Error::Closed), "{n}: {error}"),
            }
        }
        // The first commit, with those that arrived before it began, and one for all others.
        assert!(seen.len() <= 2, "more commits than two: {seen:?}");
        assert_eq!(count(&reader), 20, "all but the one that failed");
        drop(writer);
        thread.join().unwrap();
    }
}
