//! The [`Ledger`] trait and what goes in and out of it.

use std::ops::RangeInclusive;
use std::path::Path;

use async_trait::async_trait;
use forecastle_planning::Plan;
use forecastle_protos::ids::{LedgerId, RequestId, RunId, ShardId, WorkerId};
use forecastle_protos::v1::{self, Outcome};
use forecastle_resources::{Priority, Reservation, SizeClass};

use super::{
    Counters, DeadListing, DeadShard, Decided, Decision, NotDead, RecordedDecision, RecordedStage, Replay, RunEvent,
    ShardState, StageForecast,
};

/// A request that passed validation, about to become durable.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    /// Its id, minted by the caller; ignored if the key is known already.
    pub id: RequestId,
    /// The tenant.
    pub tenant: String,
    /// Makes a repeated submission the same request, within the tenant.
    pub idempotency_key: Option<String>,
    /// SHA-256 of what is meant, with defaults filled in: the same key with another body is a conflict.
    pub body_sha256: [u8; 32],
    /// SHA-256 of what was sent: the same is the same request, whatever has become of the defaults since.
    pub sent_sha256: [u8; 32],
    /// What was submitted, with defaults filled in.
    pub body: v1::SubmitRequest,
    /// The fleet that runs it.
    pub fleet: String,
    /// The priority.
    pub priority: Priority,
    /// After this the result is of no use; milliseconds since 1970.
    pub deadline_ms: Option<u64>,
    /// Where the final reply goes, for requests over AMQP.
    pub reply: Option<ReplyAddress>,
    /// Now, milliseconds since 1970.
    pub now_ms: u64,
}

/// A submission that may have been made before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    /// The tenant.
    pub tenant: String,
    /// The key, within the tenant.
    pub idempotency_key: String,
    /// SHA-256 of what was sent.
    pub sent_sha256: [u8; 32],
    /// Where the final reply goes.
    pub reply: Option<ReplyAddress>,
}

/// Where the final reply goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyAddress {
    /// A queue.
    pub queue: String,
    /// What the reply repeats.
    pub correlation_id: Option<String>,
    /// True if replies are JSON, false if they are protobuf.
    pub json: bool,
}

/// The answer to an [`Admission`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// The request: the new one, or the one that had the key.
    pub request: RequestId,
    /// False if it had been admitted before.
    pub created: bool,
    /// True if it has ended and owes its final reply, perhaps once more: see [`Ledger::admit`].
    pub reply_owed: bool,
}

/// What every shard of a request shares.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestHead {
    /// The request.
    pub id: RequestId,
    /// The order of admission.
    pub seq: i64,
    /// The tenant.
    pub tenant: String,
    /// The request type.
    pub request_type: String,
    /// The fleet.
    pub fleet: String,
    /// The priority.
    pub priority: Priority,
    /// The deadline, milliseconds since 1970.
    pub deadline_ms: Option<u64>,
    /// When it was admitted, milliseconds since 1970.
    pub created_ms: u64,
    /// What was submitted.
    pub body: v1::SubmitRequest,
}

/// Shards that became ready, as a range of one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadyRange {
    /// The request.
    pub request: RequestId,
    /// The stage.
    pub stage: u32,
    /// The first shard.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// A shard that becomes ready later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackingOff {
    /// The shard.
    pub shard: ShardId,
    /// When, milliseconds since 1970.
    pub not_before_ms: u64,
}

/// One shard's specification and history, as needed to release it.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardSpec {
    /// The shard.
    pub shard: ShardId,
    /// Where it is.
    pub state: ShardState,
    /// The stage's name.
    pub stage_name: String,
    /// The unit.
    pub unit: String,
    /// What it reads.
    pub items: Vec<v1::Item>,
    /// The attempt that a release would mint, from 1.
    pub next_attempt: u32,
    /// How earlier attempts ended.
    pub counters: Counters,
    /// The reservation of the last attempt that ended, if any.
    pub last_reservation: Option<Reservation>,
    /// Where earlier attempts came to, if one left word of that.
    pub checkpoint: Option<v1::Checkpoint>,
    /// The stages whose results it reads.
    pub depends_on: Vec<u32>,
}

/// An attempt to order.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// The shard.
    pub shard: ShardId,
    /// The attempt; must be the shard's next.
    pub attempt: u32,
    /// What is reserved.
    pub reservation: Reservation,
    /// Why.
    pub forecast: v1::Forecast,
    /// The size class.
    pub class: SizeClass,
    /// The queue.
    pub queue: String,
    /// Wall-clock limit of a run in milliseconds; 0 is none.
    pub timeout_ms: u64,
    /// Now, milliseconds since 1970.
    pub now_ms: u64,
}

/// An attempt that was ordered and has not ended.
#[derive(Debug, Clone, PartialEq)]
pub struct InFlight {
    /// The order.
    pub release: Release,
    /// True once the broker confirmed the message.
    pub confirmed: bool,
    /// True once a worker claimed it.
    pub claimed: bool,
}

/// A run that a worker reported as claimed and that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveRun {
    /// The run.
    pub run: RunId,
    /// Its shard.
    pub shard: ShardId,
    /// Its attempt.
    pub attempt: u32,
    /// Its worker.
    pub worker: WorkerId,
    /// When the ledger heard of it, milliseconds since 1970.
    pub claimed_ms: u64,
    /// True if it is to stop: its shard has ended or was cancelled.
    pub unwanted: bool,
}

/// A live run with what its attempt was ordered with.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The run.
    pub run: LiveRun,
    /// What is reserved; `None` for a run whose attempt has ended.
    pub reservation: Option<Reservation>,
    /// Wall-clock limit of the run in milliseconds; 0 is none, or not known.
    pub timeout_ms: u64,
}

/// An attempt whose message the broker has and that nobody claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unclaimed {
    /// The shard.
    pub shard: ShardId,
    /// The attempt.
    pub attempt: u32,
    /// The queue.
    pub queue: String,
    /// When it was ordered, milliseconds since 1970.
    pub released_ms: u64,
}

/// Shards whose results are there, with runs beside them that may have left something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outgrown {
    /// The last of the events that were looked at; `None` if there was none.
    pub last: Option<i64>,
    /// The shards, each with the run that won.
    pub shards: Vec<(ShardId, RunId)>,
}

/// A run that was declared to have ended, of a shard that has ended since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftBehind {
    /// The shard.
    pub shard: ShardId,
    /// The run.
    pub run: RunId,
    /// It succeeded after all, and is the shard's result.
    pub won: bool,
}

/// What a change to the ledger means for everyone else. All of it can be derived again from the ledger after a crash.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Shards that may be released.
    pub ready: Vec<ReadyRange>,
    /// Shards that may be released later.
    pub backing_off: Vec<BackingOff>,
    /// Attempts that were claimed or ended without a claim: they no longer wait in their queue.
    pub left_queue: Vec<(ShardId, u32)>,
    /// Runs that should stop.
    pub unwanted: Vec<RunId>,
    /// Requests whose status changed.
    pub touched: Vec<RequestId>,
    /// Requests that ended.
    pub finished: Vec<RequestId>,
    /// How many completion events were new.
    pub recorded: u32,
    /// Events that had been applied before.
    pub duplicates: u32,
    /// Events of shards that this ledger does not know.
    pub strays: u32,
}

impl Changes {
    /// Adds what another change means.
    pub fn extend(&mut self, other: Self) {
        self.ready.extend(other.ready);
        self.backing_off.extend(other.backing_off);
        self.left_queue.extend(other.left_queue);
        self.unwanted.extend(other.unwanted);
        for request in other.touched {
            if !self.touched.contains(&request) {
                self.touched.push(request);
            }
        }
        self.finished.extend(other.finished);
        self.recorded += other.recorded;
        self.duplicates += other.duplicates;
        self.strays += other.strays;
    }
}

/// A completion event in the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedEvent {
    /// Its place in the order of commits; never reused.
    pub seq: i64,
    /// True if this run's success is the shard's result.
    pub winning: bool,
    /// The event.
    pub event: RunEvent,
}

/// Everything that was planned and is unfinished, read once at start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OpenWork {
    /// Shards that may be released.
    pub ready: Vec<ReadyRange>,
    /// Shards that may be released later.
    pub backing_off: Vec<BackingOff>,
    /// Attempts that have not ended.
    pub in_flight: Vec<InFlight>,
    /// Runs that have not ended.
    pub runs: Vec<LiveRun>,
    /// Requests that owe their producer a final reply.
    pub replies_owed: Vec<RequestId>,
}

/// Why a message is recorded as stray.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Where it came from.
    pub queue: String,
    /// Why it belongs to nothing.
    pub reason: String,
    /// Its headers, as JSON.
    pub headers: String,
    /// Its body.
    pub body: Vec<u8>,
    /// Now, milliseconds since 1970.
    pub now_ms: u64,
}

/// Which requests to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Of this tenant only.
    pub tenant: String,
    /// In this state only.
    pub state: Option<v1::RequestState>,
    /// Older than this (a `next_cursor`).
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// Who must have read what before it may be forgotten: names of watermarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readers {
    /// Readers of completion events.
    pub events: &'static [&'static str],
    /// Readers of decisions.
    pub decisions: &'static [&'static str],
}

/// What retention removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Requests, with all that belongs to them.
    pub requests: u32,
    /// Events of theirs.
    pub events: u32,
}

/// The durable record. Every method answers after the commit.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// The ledger's id.
    fn id(&self) -> LedgerId;

    /// Makes a request durable, or finds it by its key.
    ///
    /// The reply address of a repeated submission replaces the request's: the producer may have restarted, and nobody
    /// reads the old one. If the request has ended, its final reply is owed again, to that address: whoever asks is
    /// told. A submission without a reply address leaves the request's as it is.
    async fn admit(&self, admission: Admission) -> Result<Admitted, Error>;

    /// Finds what was sent before, word for word, with this key: also if it would not be accepted any more. Its reply
    /// address counts like that of any repeated submission.
    async fn admitted_before(&self, repeated: Repeated) -> Result<Option<Admitted>, Error>;

    /// Records a request's plan and fires the stages that depend on nothing. Recording a second plan changes nothing:
    /// a plan is never recomputed.
    async fn record_plan(&self, request: RequestId, plan: Plan) -> Result<Changes, Error> {
        self.record_plan_foreseen(request, plan, Vec::new()).await
    }

    /// The same, with what was foreseen for its stages, for history.
    async fn record_plan_foreseen(
        &self,
        request: RequestId,
        plan: Plan,
        foreseen: Vec<StageForecast>,
    ) -> Result<Changes, Error>;

    /// Ends a request that cannot be planned.
    async fn fail_request(&self, request: RequestId, error: v1::ErrorDetail, now_ms: u64) -> Result<Changes, Error>;

    /// Orders attempts. Answers with those that were ordered; the others were no longer ready, or their attempt was
    /// not the next.
    async fn release(&self, releases: Vec<Release>) -> Result<Vec<Release>, Error>;

    /// Marks attempts whose message the broker confirmed. Lazy: losing a mark means only a replay.
    async fn confirm(&self, attempts: Vec<(ShardId, u32)>) -> Result<(), Error>;

    /// Applies events of runs, all in one transaction. Applying one twice changes nothing.
    async fn apply(&self, events: Vec<RunEvent>, now_ms: u64) -> Result<Changes, Error>;

    /// Takes back an attempt whose message came back from the broker: it was never claimed. `outcome` says against
    /// which budget it counts: [`Outcome::Unsupported`] for a message that nobody could take,
    /// [`Outcome::WorkerLost`] for one that the broker gave up because its deliveries kept failing.
    async fn take_back(
        &self,
        shard: ShardId,
        attempt: u32,
        outcome: Outcome,
        reason: &str,
        now_ms: u64,
    ) -> Result<Changes, Error>;

    /// Carries out what the sweeper decided, and logs each decision that changed something, all in one transaction.
    /// Deciding the same twice changes nothing; so does a decision that a worker's own word has overtaken.
    async fn decide(&self, decisions: Vec<Decision>, now_ms: u64) -> Result<Decided, Error>;

    /// Ends a shard that is ready and that nobody can ever run, and with it its request. One that is not ready any
    /// more stays as it is.
    async fn refuse(&self, shard: ShardId, code: &'static str, why: &str, now_ms: u64) -> Result<Changes, Error>;

    /// Dead shards, the latest first, with the cursor of the next page.
    async fn dead(&self, listing: DeadListing) -> Result<(Vec<DeadShard>, Option<i64>), Error>;

    /// A dead shard with what was decided of it; `None` if it is not dead.
    async fn dead_shard(&self, shard: ShardId) -> Result<Option<(DeadShard, Vec<Decision>)>, Error>;

    /// Reopens the request of a dead shard: what had succeeded stays, and the rest may be released again, the dead
    /// shard with fresh budgets. A replay that was answered before finds the shard no longer dead.
    async fn replay(&self, shard: ShardId, now_ms: u64) -> Result<Result<Replay, NotDead>, Error>;

    /// Forgets a dead shard. Its request stays as it ended.
    async fn purge(&self, shard: ShardId, now_ms: u64) -> Result<Result<(), NotDead>, Error>;

    /// Shards whose time to wait is over become ready.
    async fn resume(&self, shards: Vec<ShardId>) -> Result<Changes, Error>;

    /// Cancels a request. Cancelling one that has ended changes nothing.
    async fn cancel(&self, request: RequestId, now_ms: u64) -> Result<Changes, Error>;

    /// Keeps a message that belongs to nothing.
    async fn record_stray(&self, stray: Stray) -> Result<(), Error>;

    /// The final reply was delivered to `to`, or nobody can receive it there. If the request's address has changed
    /// meanwhile, the reply stays owed.
    async fn settle_reply(&self, request: RequestId, to: ReplyAddress, delivered: bool) -> Result<(), Error>;

    /// Requests that were admitted and not planned, the oldest first.
    async fn unplanned(&self, limit: u32) -> Result<Vec<RequestId>, Error>;

    /// Everything unfinished that was planned.
    async fn open_work(&self) -> Result<OpenWork, Error>;

    /// What a request's shards share.
    async fn head(&self, request: RequestId) -> Result<Option<RequestHead>, Error>;

    /// Where the final reply goes, while it is owed.
    async fn owed_reply(&self, request: RequestId) -> Result<Option<ReplyAddress>, Error>;

    /// Specifications of shards, in the order asked for; unknown ones are left out.
    async fn specs(&self, shards: Vec<ShardId>) -> Result<Vec<ShardSpec>, Error>;

    /// The winning runs of some stages of a request, by stage and shard.
    async fn results(&self, request: RequestId, stages: Vec<u32>) -> Result<Vec<v1::ShardResult>, Error>;

    /// Runs that have not ended, with what is reserved for them.
    async fn claims(&self) -> Result<Vec<Claim>, Error>;

    /// Of runs that workers have, those whose end would change nothing: their shard has ended or is not known, or the run
    /// was declared to have timed out.
    async fn of_no_use(&self, runs: Vec<(RunId, ShardId)>) -> Result<Vec<RunId>, Error>;

    /// Of shards with completion events after `seq`, those that have succeeded and had runs that did not win.
    async fn outgrown_after(&self, seq: i64, limit: u32) -> Result<Outgrown, Error>;

    /// Runs that were declared to have ended (lost, late) and whose shard has ended since, at most `limit` of them.
    async fn left_behind(&self, limit: u32) -> Result<Vec<LeftBehind>, Error>;

    /// Forgets runs that were left behind: workers were told.
    async fn forget_left_behind(&self, runs: Vec<RunId>) -> Result<(), Error>;

    /// Attempts whose message the broker has and that nobody claimed, without those that were ordered `lately`
    /// (milliseconds since 1970).
    async fn unclaimed(&self, lately: RangeInclusive<u64>) -> Result<Vec<Unclaimed>, Error>;

    /// A request's status.
    async fn status(&self, request: RequestId) -> Result<Option<v1::RequestStatus>, Error>;

    /// Requests, newest first, with the cursor of the next page.
    async fn list(&self, listing: Listing) -> Result<(Vec<v1::RequestStatus>, Option<i64>), Error>;

    /// A page of a request's winning runs, after `(stage, index)`.
    async fn manifest(
        &self,
        request: RequestId,
        after: Option<(u32, u32)>,
        limit: u32,
    ) -> Result<Vec<v1::ShardResult>, Error>;

    /// The attempt in flight of a shard, with its live runs, and the events of its ended ones.
    async fn shard_history(&self, shard: ShardId) -> Result<ShardHistory, Error>;

    /// Completion events after `seq`, in order.
    async fn events_after(&self, seq: i64, limit: u32) -> Result<Vec<RecordedEvent>, Error>;

    /// How many completion events a reader has not read.
    async fn lag(&self, reader: &str) -> Result<u64, Error>;

    /// Decisions after `seq`, in order.
    async fn decisions_after(&self, seq: i64, limit: u32) -> Result<Vec<RecordedDecision>, Error>;

    /// Planned stages after `seq`, in order.
    async fn stages_after(&self, seq: i64, limit: u32) -> Result<Vec<RecordedStage>, Error>;

    /// How far a reader of one of the logs has come; 0 at first.
    async fn watermark(&self, reader: &str) -> Result<i64, Error>;

    /// Records how far a reader has come. Never moves back.
    async fn set_watermark(&self, reader: &str, seq: i64) -> Result<(), Error>;

    /// Removes requests that ended before `ended_before_ms` and whose events `readers` have passed, and what was logged
    /// before then, decisions once they have passed them too.
    async fn prune(&self, ended_before_ms: u64, readers: Readers, limit: u32) -> Result<Pruned, Error>;

    /// Writes a consistent copy of the whole ledger to a new file, while work goes on.
    async fn backup(&self, to: &Path) -> Result<(), Error>;
}

/// The runs of one shard.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShardHistory {
    /// The attempt that is in flight.
    pub in_flight: Option<InFlight>,
    /// Its runs.
    pub live: Vec<LiveRun>,
    /// Runs that ended, in the order of their commits.
    pub ended: Vec<RecordedEvent>,
    /// Not before this time, if it backs off.
    pub not_before_ms: Option<u64>,
}

/// What can go wrong with the ledger.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process owns it.
    #[error(
        "the ledger {path} is in use by another frontend{holder}: stop that one, or give this one a ledger of its own"
    )]
    Owned {
        /// The ledger's directory.
        path: String,
        /// Who, if known.
        holder: String,
    },
    /// It was written by a newer version.
    #[error(
        "the ledger {path} has schema version {found}, and this program knows up to {known}: use a newer forecastle-frontend"
    )]
    NewerSchema {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
        /// The newest this program knows.
        known: u32,
    },
    /// The key was used before, for another body.
    #[error("idempotency key `{key}` was used for another request ({request})")]
    Conflict {
        /// The key.
        key: String,
        /// The request that has it.
        request: RequestId,
    },
    /// No such request.
    #[error("there is no request {0}")]
    UnknownRequest(RequestId),
    /// The disk is full.
    #[error("the disk under the ledger is full; nothing was accepted, free some space")]
    DiskFull,
    /// SQLite said no.
    #[error("ledger: {context}")]
    Sqlite {
        /// What was being done.
        context: &'static str,
        /// SQLite's words.
        #[source]
        source: rusqlite::Error,
    },
    /// A file operation beside the database failed.
    #[error("ledger: {context} {path}")]
    File {
        /// What was being done.
        context: &'static str,
        /// The file.
        path: String,
        /// The operating system's words.
        #[source]
        source: std::io::Error,
    },
    /// What is stored cannot be read.
    #[error("the ledger holds something unreadable: {0}")]
    Corrupt(String),
    /// The writer has stopped.
    #[error("the ledger is closed")]
    Closed,
}

impl Error {
    /// True if the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::DiskFull => true,
            Self::Sqlite { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(
                    rusqlite::ErrorCode::DatabaseBusy
                        | rusqlite::ErrorCode::DatabaseLocked
                        | rusqlite::ErrorCode::SystemIoFailure
                        | rusqlite::ErrorCode::OutOfMemory
                )
            ),
            _ => false,
        }
    }
}
