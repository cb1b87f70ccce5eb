//! Under the ledger: a disk that is slow and full at times, and a frontend that may die before or after each commit.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use forecastle_frontend::ledger::sqlite::SqliteLedger;
use forecastle_frontend::ledger::{
    Admission, Admitted, Changes, Claim, DeadListing, DeadShard, Decided, Decision, Error, Ledger, LeftBehind, Listing,
    NotDead, OpenWork, Outgrown, Pruned, Readers, RecordedDecision, RecordedEvent, RecordedStage, Release, Repeated,
    Replay, ReplyAddress, RequestHead, RetryPolicy, RunEvent, ShardHistory, ShardSpec, StageForecast, Stray, Unclaimed,
};
use forecastle_planning::Plan;
use forecastle_protos::ids::{LedgerId, RequestId, RunId, ShardId};
use forecastle_protos::v1::{self, Outcome};

use crate::fuse::Fuse;
use crate::link::Link;
use crate::weather::Weather;

/// One life's hold of the ledger in a folder.
///
/// What SQLite does takes no simulated time: the thread waits for it. So the clock does not jump ahead while the disk
/// works, and how busy the machine is changes nothing.
pub struct Disk {
    id: LedgerId,
    /// `None` once this life is over.
    ledger: Mutex<Option<Arc<SqliteLedger>>>,
    link: Link,
    fuse: Arc<Fuse>,
    weather: Arc<Weather>,
}

impl Disk {
    /// Opens the ledger in `folder`. It stands still when `link` does.
    pub fn open(
        folder: &Path,
        policy: Arc<dyn RetryPolicy>,
        link: Link,
        fuse: Arc<Fuse>,
        weather: Arc<Weather>,
    ) -> Result<Self, Error> {
        let ledger = SqliteLedger::open(folder, policy)?;
        Ok(Self { id: ledger.id(), ledger: Mutex::new(Some(Arc::new(ledger))), link, fuse, weather })
    }

    /// This life is over: the files are free for the next, and nobody is answered any more.
    pub fn release(&self) {
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ledger) = ledger {
            futures::executor::block_on(ledger.close());
        }
    }

    /// The ledger itself, for those who look at it from outside.
    pub fn ledger(&self) -> Option<Arc<SqliteLedger>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn write<T>(
        &self,
        change: impl AsyncFnOnce(Arc<SqliteLedger>) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        self.step().await;
        if self.weather.is_disk_full() {
            return Err(Error::DiskFull);
        }
        let result = self.call(change).await;
        self.fuse.step().await;
        result
    }

    async fn read<T>(&self, query: impl AsyncFnOnce(Arc<SqliteLedger>) -> Result<T, Error> + Send) -> Result<T, Error> {
        self.step().await;
        self.call(query).await
    }

    async fn step(&self) {
        self.link.pass().await;
        tokio::time::sleep(self.weather.latency()).await;
        self.fuse.step().await;
        self.link.pass().await;
    }

    async fn call<T>(&self, call: impl AsyncFnOnce(Arc<SqliteLedger>) -> Result<T, Error> + Send) -> Result<T, Error> {
        match self.ledger() {
            Some(ledger) => futures::executor::block_on(call(ledger)),
            None => std::future::pending().await,
        }
    }
}

/// Where a world keeps its files.
pub fn folder() -> std::io::Result<tempfile::TempDir> {
    // In memory if there is such a place: what a simulation loses with a real crash is no loss.
    let shared = PathBuf::from("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }
}

#[async_trait]
impl Ledger for Disk {
    fn id(&self) -> LedgerId {
        self.id
    }

    async fn admit(&self, admission: Admission) -> Result<Admitted, Error> {
        self.write(async |ledger| ledger.admit(admission).await).await
    }

    async fn admitted_before(&self, repeated: Repeated) -> Result<Option<Admitted>, Error> {
        self.write(async |ledger| ledger.admitted_before(repeated).await).await
    }

    async fn record_plan_foreseen(
        &self,
        request: RequestId,
        plan: Plan,
        foreseen: Vec<StageForecast>,
    ) -> Result<Changes, Error> {
        self.write(async |ledger| ledger.record_plan_foreseen(request, plan, foreseen).await).await
    }

    async fn fail_request(&self, request: RequestId, error: v1::ErrorDetail, now_ms: u64) -> Result<Changes, Error> {
        self.write(async |ledger| ledger.fail_request(request, error, now_ms).await).await
    }

    async fn release(&self, releases: Vec<Release>) -> Result<Vec<Release>, Error> {
        self.write(async |ledger| ledger.release(releases).await).await
    }

    async fn confirm(&self, attempts: Vec<(ShardId, u32)>) -> Result<(), Error> {
        self.write(async |ledger| ledger.confirm(attempts).await).await
    }

    async fn apply(&self, events: Vec<RunEvent>, now_ms: u64) -> Result<Changes, Error> {
        self.write(async |ledger| ledger.apply(events, now_ms).await).await
    }

    async fn take_back(
        &self,
        shard: ShardId,
        attempt: u32,
        outcome: Outcome,
        reason: &str,
        now_ms: u64,
    ) -> Result<Changes, Error> {
        self.write(async |ledger| ledger.take_back(shard, attempt, outcome, reason, now_ms).await).await
    }

    async fn decide(&self, decisions: Vec<Decision>, now_ms: u64) -> Result<Decided, Error> {
        self.write(async |ledger| ledger.decide(decisions, now_ms).await).await
    }

    async fn refuse(&self, shard: ShardId, code: &'static str, why: &str, now_ms: u64) -> Result<Changes, Error> {
        self.write(async |ledger| ledger.refuse(shard, code, why, now_ms).await).await
    }

    async fn dead(&self, listing: DeadListing) -> Result<(Vec<DeadShard>, Option<i64>), Error> {
        self.read(async |ledger| ledger.dead(listing).await).await
    }

    async fn dead_shard(&self, shard: ShardId) -> Result<Option<(DeadShard, Vec<Decision>)>, Error> {
        self.read(async |ledger| ledger.dead_shard(shard).await).await
    }

    async fn replay(&self, shard: ShardId, now_ms: u64) -> Result<Result<Replay, NotDead>, Error> {
        self.write(async |ledger| ledger.replay(shard, now_ms).await).await
    }

    async fn purge(&self, shard: ShardId, now_ms: u64) -> Result<Result<(), NotDead>, Error> {
        self.write(async |ledger| ledger.purge(shard, now_ms).await).await
    }

    async fn resume(&self, shards: Vec<ShardId>) -> Result<Changes, Error> {
        self.write(async |ledger| ledger.resume(shards).await).await
    }

    async fn cancel(&self, request: RequestId, now_ms: u64) -> Result<Changes, Error> {
        self.write(async |ledger| ledger.cancel(request, now_ms).await).await
    }

    async fn record_stray(&self, stray: Stray) -> Result<(), Error> {
        self.write(async |ledger| ledger.record_stray(stray).await).await
    }

    async fn settle_reply(&self, request: RequestId, to: ReplyAddress, delivered: bool) -> Result<(), Error> {
        self.write(async |ledger| ledger.settle_reply(request, to, delivered).await).await
    }

    async fn unplanned(&self, limit: u32) -> Result<Vec<RequestId>, Error> {
        self.read(async |ledger| ledger.unplanned(limit).await).await
    }

    async fn open_work(&self) -> Result<OpenWork, Error> {
        self.read(async |ledger| ledger.open_work().await).await
    }

    async fn head(&self, request: RequestId) -> Result<Option<RequestHead>, Error> {
        self.read(async |ledger| ledger.head(request).await).await
    }

    async fn owed_reply(&self, request: RequestId) -> Result<Option<ReplyAddress>, Error> {
        self.read(async |ledger| ledger.owed_reply(request).await).await
    }

    async fn specs(&self, shards: Vec<ShardId>) -> Result<Vec<ShardSpec>, Error> {
        self.read(async |ledger| ledger.specs(shards).await).await
    }

    async fn results(&self, request: RequestId, stages: Vec<u32>) -> Result<Vec<v1::ShardResult>, Error> {
        self.read(async |ledger| ledger.results(request, stages).await).await
    }

    async fn claims(&self) -> Result<Vec<Claim>, Error> {
        self.read(async |ledger| ledger.claims().await).await
    }

    async fn of_no_use(&self, runs: Vec<(RunId, ShardId)>) -> Result<Vec<RunId>, Error> {
        self.read(async |ledger| ledger.of_no_use(runs).await).await
    }

    async fn outgrown_after(&self, seq: i64, limit: u32) -> Result<Outgrown, Error> {
        self.read(async |ledger| ledger.outgrown_after(seq, limit).await).await
    }

    async fn left_behind(&self, limit: u32) -> Result<Vec<LeftBehind>, Error> {
        self.read(async |ledger| ledger.left_behind(limit).await).await
    }

    async fn forget_left_behind(&self, runs: Vec<RunId>) -> Result<(), Error> {
        self.write(async |ledger| ledger.forget_left_behind(runs).await).await
    }

    async fn unclaimed(&self, lately: RangeInclusive<u64>) -> Result<Vec<Unclaimed>, Error> {
        self.read(async |ledger| ledger.unclaimed(lately).await).await
    }

    async fn status(&self, request: RequestId) -> Result<Option<v1::RequestStatus>, Error> {
        self.read(async |ledger| ledger.status(request).await).await
    }

    async fn list(&self, listing: Listing) -> Result<(Vec<v1::RequestStatus>, Option<i64>), Error> {
        self.read(async |ledger| ledger.list(listing).await).await
    }

    async fn manifest(
        &self,
        request: RequestId,
        after: Option<(u32, u32)>,
        limit: u32,
    ) -> Result<Vec<v1::ShardResult>, Error> {
        self.read(async |ledger| ledger.manifest(request, after, limit).await).await
    }

    async fn shard_history(&self, shard: ShardId) -> Result<ShardHistory, Error> {
        self.read(async |ledger| ledger.shard_history(shard).await).await
    }

    async fn events_after(&self, seq: i64, limit: u32) -> Result<Vec<RecordedEvent>, Error> {
        self.read(async |ledger| ledger.events_after(seq, limit).await).await
    }

    async fn lag(&self, reader: &str) -> Result<u64, Error> {
        self.read(async |ledger| ledger.lag(reader).await).await
    }

    async fn decisions_after(&self, seq: i64, limit: u32) -> Result<Vec<RecordedDecision>, Error> {
        self.read(async |ledger| ledger.decisions_after(seq, limit).await).await
    }

    async fn stages_after(&self, seq: i64, limit: u32) -> Result<Vec<RecordedStage>, Error> {
        self.read(async |ledger| ledger.stages_after(seq, limit).await).await
    }

    async fn watermark(&self, reader: &str) -> Result<i64, Error> {
        self.read(async |ledger| ledger.watermark(reader).await).await
    }

    async fn set_watermark(&self, reader: &str, seq: i64) -> Result<(), Error> {
        self.write(async |ledger| ledger.set_watermark(reader, seq).await).await
    }

    async fn prune(&self, ended_before_ms: u64, readers: Readers, limit: u32) -> Result<Pruned, Error> {
        self.write(async |ledger| ledger.prune(ended_before_ms, readers, limit).await).await
    }

    async fn backup(&self, to: &Path) -> Result<(), Error> {
        self.write(async |ledger| ledger.backup(to).await).await
    }
}
