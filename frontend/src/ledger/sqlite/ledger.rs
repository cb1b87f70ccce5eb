//! The handle: each method is one job for the writer or one query for a reader.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use forecastle_planning::Plan;
use forecastle_protos::ids::{LedgerId, RequestId, RunId, ShardId};
use forecastle_protos::v1::{self, Outcome};
use rusqlite::Connection;

use super::owner::Owner;
use super::reader::{self, Reader};
use super::writer::Writer;
use super::{
    admission, apply, claims, dead, decisions, during, ending, history, plan, queries, release, reply, retention,
    schema,
};
use crate::clock::now_ms;
use crate::ledger::{
    Admission, Admitted, Changes, Claim, DeadListing, DeadShard, Decided, Decision, Error, Ledger, LeftBehind, Listing,
    NotDead, OpenWork, Outgrown, Pruned, Readers, RecordedDecision, RecordedEvent, RecordedStage, Release, Repeated,
    Replay, ReplyAddress, RequestHead, RetryPolicy, RunEvent, ShardHistory, ShardSpec, StageForecast, Stray, Unclaimed,
};

/// A ledger in a folder: `ledger.sqlite3` and the lock of its owner.
pub struct SqliteLedger {
    id: LedgerId,
    path: PathBuf,
    writer: Mutex<Option<Writer>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    reader: Reader,
    policy: Arc<dyn RetryPolicy>,
}

impl std::fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteLedger").field("id", &self.id).field("path", &self.path).finish_non_exhaustive()
    }
}

/// The database's name within the ledger's folder.
const FILE: &str = "ledger.sqlite3";

impl SqliteLedger {
    /// Opens the ledger in `directory`, making both if they are not there, and becomes its owner.
    pub fn open(directory: &Path, policy: Arc<dyn RetryPolicy>) -> Result<Self, Error> {
        let file_error = |context: &'static str| {
            let path = directory.display().to_string();
            move |source| Error::File { context, path: path.clone(), source }
        };
        std::fs::create_dir_all(directory).map_err(file_error("cannot create"))?;
        let owner = Owner::acquire(directory)?;
        let path = directory.join(FILE);
        let mut connection = Connection::open(&path).map_err(during("opening it"))?;
        schema::configure(&connection).map_err(during("setting it up"))?;
        let id = schema::migrate(&mut connection, &path.display().to_string())?;
        let reader = Reader::new(&path);
        let (writer, thread) = Writer::start(connection, owner).map_err(file_error("cannot start the writer of"))?;
        Ok(Self { id, path, writer: Mutex::new(Some(writer)), thread: Mutex::new(Some(thread)), reader, policy })
    }

    /// Lets the writer finish what it has and closes the database. Every later change fails with [`Error::Closed`].
    pub async fn close(&self) {
        drop(self.writer.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A writer that panicked has nothing left to finish.
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
    }

    async fn write<T, F>(&self, change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        writer.ok_or(Error::Closed)?.write(change).await
    }
}

/// Writes a consistent copy of the ledger in `directory` to a new file, whether or not a frontend is using it.
pub fn backup_file(directory: &Path, to: &Path) -> Result<(), Error> {
    copy(&reader::open(&directory.join(FILE))?, to)
}

fn copy(connection: &Connection, to: &Path) -> Result<(), Error> {
    if to.exists() {
        let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(Error::File { context: "will not overwrite", path: to.display().to_string(), source });
    }
    connection.execute("VACUUM INTO ?1", [to.display().to_string()]).map_err(during("copying it"))?;
    Ok(())
}

#[async_trait]
impl Ledger for SqliteLedger {
    fn id(&self) -> LedgerId {
        self.id
    }

    async fn admit(&self, admission: Admission) -> Result<Admitted, Error> {
        self.write(move |c| admission::admit(c, &admission)).await
    }

    async fn admitted_before(&self, repeated: Repeated) -> Result<Option<Admitted>, Error> {
        self.write(move |c| admission::admitted_before(c, &repeated)).await
    }

    async fn record_plan_foreseen(
        &self,
        request: RequestId,
        plan: Plan,
        foreseen: Vec<StageForecast>,
    ) -> Result<Changes, Error> {
        let now_ms = now_ms();
        self.write(move |c| plan::record(c, request, &plan, &foreseen, now_ms)).await
    }

    async fn fail_request(&self, request: RequestId, error: v1::ErrorDetail, now_ms: u64) -> Result<Changes, Error> {
        self.write(move |c| ending::fail(c, request, &error, now_ms)).await
    }

    async fn release(&self, releases: Vec<Release>) -> Result<Vec<Release>, Error> {
        self.write(move |c| release::release(c, releases)).await
    }

    async fn confirm(&self, attempts: Vec<(ShardId, u32)>) -> Result<(), Error> {
        self.write(move |c| release::confirm(c, &attempts)).await
    }

    async fn apply(&self, events: Vec<RunEvent>, now_ms: u64) -> Result<Changes, Error> {
        let policy = Arc::clone(&self.policy);
        self.write(move |c| apply::apply(c, &*policy, &events, now_ms)).await
    }

    async fn take_back(
        &self,
        shard: ShardId,
        attempt: u32,
        outcome: Outcome,
        reason: &str,
        now_ms: u64,
    ) -> Result<Changes, Error> {
        let (policy, reason) = (Arc::clone(&self.policy), reason.to_owned());
        self.write(move |c| apply::take_back(c, &*policy, shard, attempt, outcome, &reason, now_ms)).await
    }

    async fn decide(&self, decisions: Vec<Decision>, now_ms: u64) -> Result<Decided, Error> {
        let policy = Arc::clone(&self.policy);
        self.write(move |c| decisions::decide(c, &*policy, decisions, now_ms)).await
    }

    async fn refuse(&self, shard: ShardId, code: &'static str, why: &str, now_ms: u64) -> Result<Changes, Error> {
        let why = why.to_owned();
        self.write(move |c| dead::refuse(c, shard, code, &why, now_ms)).await
    }

    async fn dead(&self, listing: DeadListing) -> Result<(Vec<DeadShard>, Option<i64>), Error> {
        self.reader.read(move |c| dead::list(c, &listing)).await
    }

    async fn dead_shard(&self, shard: ShardId) -> Result<Option<(DeadShard, Vec<Decision>)>, Error> {
        self.reader.read(move |c| dead::show(c, shard)).await
    }

    async fn replay(&self, shard: ShardId, now_ms: u64) -> Result<Result<Replay, NotDead>, Error> {
        self.write(move |c| dead::replay(c, shard, now_ms)).await
    }

    async fn purge(&self, shard: ShardId, now_ms: u64) -> Result<Result<(), NotDead>, Error> {
        self.write(move |c| dead::purge(c, shard, now_ms)).await
    }

    async fn resume(&self, shards: Vec<ShardId>) -> Result<Changes, Error> {
        self.write(move |c| release::resume(c, &shards)).await
    }

    async fn cancel(&self, request: RequestId, now_ms: u64) -> Result<Changes, Error> {
        self.write(move |c| ending::cancel(c, request, now_ms)).await
    }

    async fn record_stray(&self, stray: Stray) -> Result<(), Error> {
        self.write(move |c| retention::record_stray(c, &stray)).await
    }

    async fn settle_reply(&self, request: RequestId, to: ReplyAddress, delivered: bool) -> Result<(), Error> {
        self.write(move |c| reply::settle(c, request, &to, delivered)).await
    }

    async fn unplanned(&self, limit: u32) -> Result<Vec<RequestId>, Error> {
        self.reader.read(move |c| queries::unplanned(c, limit)).await
    }

    async fn open_work(&self) -> Result<OpenWork, Error> {
        self.reader.read(queries::open_work).await
    }

    async fn head(&self, request: RequestId) -> Result<Option<RequestHead>, Error> {
        self.reader.read(move |c| queries::head(c, request)).await
    }

    async fn owed_reply(&self, request: RequestId) -> Result<Option<ReplyAddress>, Error> {
        self.reader.read(move |c| reply::owed(c, request)).await
    }

    async fn specs(&self, shards: Vec<ShardId>) -> Result<Vec<ShardSpec>, Error> {
        self.reader.read(move |c| queries::specs(c, &shards)).await
    }

    async fn results(&self, request: RequestId, stages: Vec<u32>) -> Result<Vec<v1::ShardResult>, Error> {
        self.reader.read(move |c| history::results(c, request, &stages)).await
    }

    async fn claims(&self) -> Result<Vec<Claim>, Error> {
        self.reader.read(claims::claims).await
    }

    async fn of_no_use(&self, runs: Vec<(RunId, ShardId)>) -> Result<Vec<RunId>, Error> {
        self.reader.read(move |c| claims::of_no_use(c, runs)).await
    }

    async fn outgrown_after(&self, seq: i64, limit: u32) -> Result<Outgrown, Error> {
        self.reader.read(move |c| history::outgrown_after(c, seq, limit)).await
    }

    async fn left_behind(&self, limit: u32) -> Result<Vec<LeftBehind>, Error> {
        self.reader.read(move |c| claims::left_behind(c, limit)).await
    }

    async fn forget_left_behind(&self, runs: Vec<RunId>) -> Result<(), Error> {
        self.write(move |c| claims::forget_left_behind(c, &runs)).await
    }

    async fn unclaimed(&self, lately: RangeInclusive<u64>) -> Result<Vec<Unclaimed>, Error> {
        self.reader.read(move |c| claims::unclaimed(c, &lately)).await
    }

    async fn status(&self, request: RequestId) -> Result<Option<v1::RequestStatus>, Error> {
        self.reader.read(move |c| queries::status(c, request)).await
    }

    async fn list(&self, listing: Listing) -> Result<(Vec<v1::RequestStatus>, Option<i64>), Error> {
        self.reader.read(move |c| queries::list(c, &listing)).await
    }

    async fn manifest(
        &self,
        request: RequestId,
        after: Option<(u32, u32)>,
        limit: u32,
    ) -> Result<Vec<v1::ShardResult>, Error> {
        self.reader.read(move |c| history::manifest(c, request, after, limit)).await
    }

    async fn shard_history(&self, shard: ShardId) -> Result<ShardHistory, Error> {
        self.reader.read(move |c| history::shard_history(c, shard)).await
    }

    async fn events_after(&self, seq: i64, limit: u32) -> Result<Vec<RecordedEvent>, Error> {
        self.reader.read(move |c| history::events_after(c, seq, limit)).await
    }

    async fn lag(&self, reader: &str) -> Result<u64, Error> {
        let reader = reader.to_owned();
        self.reader.read(move |c| claims::lag(c, &reader)).await
    }

    async fn decisions_after(&self, seq: i64, limit: u32) -> Result<Vec<RecordedDecision>, Error> {
        self.reader.read(move |c| decisions::after(c, seq, limit)).await
    }

    async fn stages_after(&self, seq: i64, limit: u32) -> Result<Vec<RecordedStage>, Error> {
        self.reader.read(move |c| decisions::stages_after(c, seq, limit)).await
    }

    async fn watermark(&self, reader: &str) -> Result<i64, Error> {
        let reader = reader.to_owned();
        self.reader.read(move |c| history::watermark(c, &reader)).await
    }

    async fn set_watermark(&self, reader: &str, seq: i64) -> Result<(), Error> {
        let reader = reader.to_owned();
        self.write(move |c| retention::set_watermark(c, &reader, seq)).await
    }

    async fn prune(&self, ended_before_ms: u64, readers: Readers, limit: u32) -> Result<Pruned, Error> {
        self.write(move |c| retention::prune(c, ended_before_ms, readers, limit)).await
    }

    async fn backup(&self, to: &Path) -> Result<(), Error> {
        // A connection of its own: a copy may take long, and `VACUUM INTO` wants no transaction around it.
        let (path, to) = (self.path.clone(), to.to_owned());
        tokio::task::spawn_blocking(move || copy(&reader::open(&path)?, &to)).await.map_err(|_| Error::Closed)?
    }
}
