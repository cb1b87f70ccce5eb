//! The ledger: what it promises whatever arrives, in whatever order and however often, and across restarts.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forecastle_frontend::ledger::sqlite::SqliteLedger;
use forecastle_frontend::ledger::{
    Admission, Changes, Error, EventKind, Failure, Ledger, Listing, NextStep, Readers, Release, ReplyAddress,
    RetryPolicy, RunEvent, ShardState,
};
use forecastle_planning::{Item, Plan, PlannedShard, PlannedStage};
use forecastle_protos::ids::{RequestId, RunId, ShardId, WorkerId};
use forecastle_protos::v1::{self, Outcome, RequestState};
use forecastle_resources::{Bytes, CpuMillis, Priority, Reservation, ResourceVector, SizeClass};
use proptest::prelude::*;

/// Somebody reads completion events.
const HISTORY: Readers = Readers { events: &["history"], decisions: &[] };

/// Retries at once, up to three attempts.
struct ThreeAttempts;

impl RetryPolicy for ThreeAttempts {
    fn after(&self, failure: &Failure<'_>) -> NextStep {
        match failure.outcome {
            Outcome::PermanentError => NextStep::Fail { code: "task-failed", message: failure.error.to_owned() },
            Outcome::TaskError if failure.attempt < 3 => NextStep::Retry { not_before_ms: failure.now_ms + 10 },
            _ if failure.attempt < 3 => NextStep::Retry { not_before_ms: failure.now_ms },
            _ => NextStep::Fail { code: "attempts-exhausted", message: "three attempts".to_owned() },
        }
    }
}

fn open(folder: &Path) -> SqliteLedger {
    SqliteLedger::open(folder, Arc::new(ThreeAttempts)).unwrap()
}

pub(crate) fn admission(key: Option<&str>) -> Admission {
    Admission {
        id: RequestId::new(),
        tenant: "acme".to_owned(),
        idempotency_key: key.map(str::to_owned),
        body_sha256: [7; 32],
        sent_sha256: [8; 32],
        body: v1::SubmitRequest { request_type: "archive".to_owned(), ..Default::default() },
        fleet: "default".to_owned(),
        priority: Priority::Standard,
        deadline_ms: None,
        reply: None,
        now_ms: 1000,
    }
}

/// `first` shards in the stage that depends on nothing, one in the stage that depends on it.
pub(crate) fn plan(first: u32) -> Plan {
    let shard = |name: String| PlannedShard {
        unit: "u".to_owned(),
        bytes: 1,
        items: vec![Item { path: format!("/in/{name}"), name, bytes: 1, text: true }],
    };
    let work = (0..first).map(|n| shard(n.to_string())).collect();
    Plan {
        stages: vec![
            PlannedStage { name: "work".to_owned(), depends_on: vec![], shards: work },
            PlannedStage { name: "last".to_owned(), depends_on: vec![0], shards: vec![shard("all".to_owned())] },
        ],
    }
}

pub(crate) fn release(shard: ShardId, attempt: u32) -> Release {
    let vector = ResourceVector::new(CpuMillis(100), Bytes::mib(64));
    Release {
        shard,
        attempt,
        reservation: Reservation::new(vector, Duration::from_secs(1)),
        forecast: v1::Forecast { source: "declared".to_owned(), ..Default::default() },
        class: SizeClass::S,
        queue: "q".to_owned(),
        timeout_ms: 60_000,
        now_ms: 2000,
    }
}

pub(crate) fn event(run: RunId, shard: ShardId, attempt: u32, outcome: Option<Outcome>) -> RunEvent {
    let kind = match outcome {
        None => EventKind::Claimed,
        Some(outcome) => EventKind::Completed(Box::new(v1::Completed {
            outcome: outcome.into(),
            request_type: "archive".to_owned(),
            unit: "u".to_owned(),
            stage: "work".to_owned(),
            ..Default::default()
        })),
    };
    RunEvent { run, shard, attempt, worker: WorkerId::new(), at_ms: 3000, kind }
}

pub(crate) fn shards(changes: &Changes) -> Vec<ShardId> {
    let of = |r: &forecastle_frontend::ledger::ReadyRange| {
        let (request, stage) = (r.request, r.stage);
        (r.first..r.first + r.count).map(move |index| ShardId { request, stage, index }).collect::<Vec<_>>()
    };
    changes.ready.iter().flat_map(of).collect()
}

async fn started(ledger: &SqliteLedger, first: u32) -> (RequestId, Vec<ShardId>) {
    let request = ledger.admit(admission(None)).await.unwrap().request;
    let changes = ledger.record_plan(request, plan(first)).await.unwrap();
    (request, shards(&changes))
}

async fn state(ledger: &SqliteLedger, request: RequestId) -> RequestState {
    ledger.status(request).await.unwrap().unwrap().state()
}

#[tokio::test]
async fn a_key_makes_one_request_and_another_body_is_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let first = ledger.admit(admission(Some("k"))).await.unwrap();
    let again = ledger.admit(admission(Some("k"))).await.unwrap();
    assert!(first.created && !again.created);
    assert_eq!(first.request, again.request);
    let otherwise_put = Admission { sent_sha256: [9; 32], ..admission(Some("k")) };
    assert_eq!(ledger.admit(otherwise_put).await.unwrap().request, first.request, "the same is meant");
    let word_for_word = Admission { body_sha256: [9; 32], ..admission(Some("k")) };
    assert_eq!(ledger.admit(word_for_word).await.unwrap().request, first.request, "a default has changed since");
    let other_body = Admission { body_sha256: [9; 32], sent_sha256: [9; 32], ..admission(Some("k")) };
    assert!(matches!(ledger.admit(other_body).await, Err(Error::Conflict { request, .. }) if request == first.request));
    let other_tenant = Admission { tenant: "other".to_owned(), ..admission(Some("k")) };
    assert!(ledger.admit(other_tenant).await.unwrap().created);
    assert_eq!(ledger.unplanned(10).await.unwrap().len(), 2);
}

fn address(queue: &str) -> ReplyAddress {
    ReplyAddress { queue: queue.to_owned(), correlation_id: Some("c".to_owned()), json: true }
}

#[tokio::test]
async fn a_producer_that_asks_again_from_elsewhere_is_answered_there() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let asked = |queue: Option<&str>| Admission { reply: queue.map(address), ..admission(Some("k")) };
    let request = ledger.admit(asked(Some("first"))).await.unwrap().request;
    // Before the end nothing is owed, and the latest address counts; who wants no reply changes nothing.
    assert!(!ledger.admit(asked(Some("second"))).await.unwrap().reply_owed);
    assert!(!ledger.admit(asked(None)).await.unwrap().reply_owed);
    assert_eq!(ledger.owed_reply(request).await.unwrap(), None);
    assert_eq!(ledger.cancel(request, 2000).await.unwrap().finished, [request]);
    assert_eq!(ledger.owed_reply(request).await.unwrap(), Some(address("second")));
    ledger.settle_reply(request, address("second"), true).await.unwrap();

    // After it: whoever asks is owed it again, whether or not it was heard before.
    assert_eq!(ledger.owed_reply(request).await.unwrap(), None);
    assert!(!ledger.admit(asked(None)).await.unwrap().reply_owed);
    assert!(ledger.admit(asked(Some("second"))).await.unwrap().reply_owed);
    assert!(ledger.admit(asked(Some("third"))).await.unwrap().reply_owed);
    ledger.settle_reply(request, address("second"), true).await.unwrap();
    assert_eq!(ledger.owed_reply(request).await.unwrap(), Some(address("third")), "what another heard settles nothing");
    ledger.settle_reply(request, address("third"), false).await.unwrap();
    assert_eq!(ledger.owed_reply(request).await.unwrap(), None);
    assert!(ledger.admit(asked(Some("third"))).await.unwrap().reply_owed);
    for other in
        [ReplyAddress { correlation_id: None, ..address("third") }, ReplyAddress { json: false, ..address("third") }]
    {
        ledger.settle_reply(request, other, true).await.unwrap();
    }

    // It survives a restart, and a conflict is none of its business.
    let other_body = Admission { body_sha256: [9; 32], sent_sha256: [9; 32], ..asked(Some("fourth")) };
    assert!(matches!(ledger.admit(other_body).await, Err(Error::Conflict { .. })));
    ledger.close().await;
    drop(ledger);
    let ledger = open(folder.path());
    assert_eq!(ledger.open_work().await.unwrap().replies_owed, [request]);
    assert_eq!(ledger.owed_reply(request).await.unwrap(), Some(address("third")));
    assert!(ledger.admit(asked(Some("third"))).await.unwrap().reply_owed, "still");
}

#[tokio::test]
async fn a_plan_is_recorded_once_and_a_stage_fires_once() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let (request, ready) = started(&ledger, 2500).await;
    assert_eq!(ready.len(), 2500);
    assert_eq!(ledger.record_plan(request, plan(3)).await.unwrap(), Changes::default());
    let releases = ready.iter().map(|shard| release(*shard, 1)).collect();
    assert_eq!(ledger.release(releases).await.unwrap().len(), 2500);
    let again = ready.iter().map(|shard| release(*shard, 1)).collect();
    assert_eq!(ledger.release(again).await.unwrap(), vec![], "an attempt is ordered once");

    let done: Vec<_> = ready.iter().map(|s| event(RunId::new(), *s, 1, Some(Outcome::Succeeded))).collect();
    let mut fired = Vec::new();
    for batch in done.chunks(700).chain(done.chunks(900)) {
        fired.extend(shards(&ledger.apply(batch.to_vec(), 4000).await.unwrap()));
    }
    assert_eq!(fired, [ShardId { request, stage: 1, index: 0 }]);
    assert_eq!(ledger.release(vec![release(fired[0], 1)]).await.unwrap().len(), 1);
    let end = ledger.apply(vec![event(RunId::new(), fired[0], 1, Some(Outcome::Succeeded))], 5000).await.unwrap();
    assert_eq!(end.finished, [request]);
    assert_eq!(state(&ledger, request).await, RequestState::Succeeded);
    assert_eq!(ledger.results(request, vec![0]).await.unwrap().len(), 2500);
}

#[tokio::test]
async fn the_first_success_wins_and_other_runs_become_unwanted() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let (_, ready) = started(&ledger, 2).await;
    ledger.release(vec![release(ready[0], 1)]).await.unwrap();
    let (a, b) = (RunId::new(), RunId::new());
    let claims = vec![event(a, ready[0], 1, None), event(b, ready[0], 1, None)];
    let changes = ledger.apply(claims, 3000).await.unwrap();
    assert_eq!((changes.left_queue.len(), changes.unwanted.len()), (1, 0));
    // One of two runs fails: the attempt goes on.
    let failed = ledger.apply(vec![event(a, ready[0], 1, Some(Outcome::TaskError))], 3000).await.unwrap();
    assert!(failed.ready.is_empty() && failed.backing_off.is_empty());
    let c = RunId::new();
    ledger.apply(vec![event(c, ready[0], 1, None)], 3000).await.unwrap();
    let won = ledger.apply(vec![event(b, ready[0], 1, Some(Outcome::Succeeded))], 3000).await.unwrap();
    assert_eq!(won.unwanted, [c]);
    let late = ledger.apply(vec![event(c, ready[0], 1, Some(Outcome::Succeeded))], 3000).await.unwrap();
    assert_eq!(late.recorded, 1);
    let winning: Vec<_> =
        ledger.events_after(0, 10).await.unwrap().into_iter().filter(|e| e.winning).map(|e| e.event.run).collect();
    assert_eq!(winning, [b]);
    // A claim that arrives after everything is told to stop.
    let d = RunId::new();
    assert_eq!(ledger.apply(vec![event(d, ready[0], 1, None)], 3000).await.unwrap().unwanted, [d]);
}

#[tokio::test]
async fn a_worker_that_was_given_up_may_still_win() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let (_, ready) = started(&ledger, 1).await;
    ledger.release(vec![release(ready[0], 1)]).await.unwrap();
    let (run, worker) = (RunId::new(), WorkerId::new());
    ledger.apply(vec![event(run, ready[0], 1, None)], 3000).await.unwrap();
    let lost = RunEvent::declared(run, ready[0], 1, worker, Outcome::WorkerLost, 4000, "silent");
    let changes = ledger.apply(vec![lost.clone()], 4000).await.unwrap();
    assert_eq!(shards(&changes), ready);
    let recorded = ledger.events_after(0, 10).await.unwrap();
    let EventKind::Completed(completed) = &recorded[0].event.kind else { panic!("it is a completion") };
    assert_eq!((&*completed.unit, &*completed.request_type, &*completed.stage), ("u", "archive", "work"));
    let back = ledger.apply(vec![event(run, ready[0], 1, Some(Outcome::Succeeded))], 5000).await.unwrap();
    assert_eq!(back.recorded, 1);
    let events = ledger.events_after(recorded[0].seq, 10).await.unwrap();
    assert!(events.len() == 1 && events[0].winning, "readers that passed the loss see the success");
    assert_eq!(ledger.apply(vec![lost], 6000).await.unwrap().duplicates, 1);
}

#[tokio::test]
async fn what_follows_a_kill_knows_how_far_the_lease_had_grown() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let (_, ready) = started(&ledger, 2).await;
    for (shard, held, expected) in [(ready[0], 200, 200), (ready[1], 10, 64)] {
        ledger.release(vec![release(shard, 1)]).await.unwrap();
        let mut killed = event(RunId::new(), shard, 1, Some(Outcome::OutOfMemory));
        let EventKind::Completed(completed) = &mut killed.kind else { panic!("it is a completion") };
        let held = ResourceVector::new(CpuMillis(100), Bytes::mib(held));
        completed.adjustments = vec![v1::Adjusted { to: Some((&held).into()), ..Default::default() }];
        ledger.apply(vec![killed], 3000).await.unwrap();
        let spec = ledger.specs(vec![shard]).await.unwrap().remove(0);
        assert_eq!(spec.last_reservation.unwrap().vector.memory, Bytes::mib(expected), "never less than it reserved");
    }
}

#[tokio::test]
async fn budgets_end_in_failure_that_cancels_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let to = address("r");
    let request = ledger.admit(Admission { reply: Some(to.clone()), ..admission(None) }).await.unwrap().request;
    let ready = shards(&ledger.record_plan(request, plan(3)).await.unwrap());
    ledger.release(vec![release(ready[1], 1)]).await.unwrap();
    let other = RunId::new();
    ledger.apply(vec![event(other, ready[1], 1, None)], 3000).await.unwrap();
    for attempt in 1..=3 {
        assert_eq!(ledger.release(vec![release(ready[0], attempt)]).await.unwrap().len(), 1);
        let changes =
            ledger.apply(vec![event(RunId::new(), ready[0], attempt, Some(Outcome::OutOfMemory))], 3000).await.unwrap();
        if attempt < 3 {
            assert_eq!(shards(&changes), [ready[0]]);
            let spec = ledger.specs(vec![ready[0]]).await.unwrap().remove(0);
            assert_eq!((spec.next_attempt, spec.counters.out_of_memory), (attempt + 1, attempt));
            assert_eq!(spec.last_reservation.unwrap().vector.memory, Bytes::mib(64));
        } else {
            assert_eq!((changes.finished, changes.unwanted), (vec![request], vec![other]));
        }
    }
    let status = ledger.status(request).await.unwrap().unwrap();
    assert_eq!((status.state(), status.oom_retries), (RequestState::Failed, 3));
    assert_eq!(status.error.unwrap().code, "attempts-exhausted");
    assert_eq!((status.stages[0].failed, status.stages[0].cancelled, status.stages[1].cancelled), (1, 2, 1));
    assert_eq!(ledger.open_work().await.unwrap().replies_owed, [request]);
    ledger.settle_reply(request, to, true).await.unwrap();
    assert_eq!(ledger.open_work().await.unwrap().replies_owed, []);
}

#[tokio::test]
async fn everything_unfinished_is_found_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let id = ledger.id();
    let (request, ready) = started(&ledger, 5).await;
    ledger.release(ready[..3].iter().map(|s| release(*s, 1)).collect()).await.unwrap();
    ledger.confirm(vec![(ready[1], 1)]).await.unwrap();
    let run = RunId::new();
    ledger.apply(vec![event(run, ready[2], 1, None)], 3000).await.unwrap();
    ledger.apply(vec![event(RunId::new(), ready[0], 1, Some(Outcome::TaskError))], 3000).await.unwrap();
    ledger.set_watermark("history", 1).await.unwrap();
    ledger.set_watermark("history", 0).await.unwrap();
    ledger.close().await;
    assert!(matches!(ledger.confirm(vec![]).await, Err(Error::Closed)));
    drop(ledger);

    let ledger = open(folder.path());
    assert_eq!(ledger.id(), id);
    assert_eq!(ledger.watermark("history").await.unwrap(), 1, "a watermark never moves back");
    let work = ledger.open_work().await.unwrap();
    let open: Vec<_> = work.ready.iter().map(|r| (r.request, r.stage, r.first, r.count)).collect();
    assert_eq!(open, [(request, 0, 3, 2)]);
    assert_eq!(work.backing_off[0].shard, ready[0]);
    let mut flying: Vec<_> = work.in_flight.iter().map(|f| (f.release.shard, f.confirmed, f.claimed)).collect();
    flying.sort();
    assert_eq!(flying, [(ready[1], true, false), (ready[2], true, true)]);
    assert_eq!(work.runs.iter().map(|r| r.run).collect::<Vec<_>>(), [run]);
    assert_eq!(shards(&ledger.resume(vec![ready[0]]).await.unwrap()), [ready[0]]);
    assert_eq!(ledger.resume(vec![ready[0]]).await.unwrap(), Changes::default());
}

#[tokio::test]
async fn an_attempt_that_came_back_is_followed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let (_, ready) = started(&ledger, 1).await;
    ledger.release(vec![release(ready[0], 1)]).await.unwrap();
    assert_eq!(shards(&ledger.take_back(ready[0], 1, Outcome::Unsupported, "no route", 3000).await.unwrap()), ready);
    assert_eq!(ledger.take_back(ready[0], 1, Outcome::Unsupported, "again", 3000).await.unwrap(), Changes::default());
    assert_eq!(ledger.release(vec![release(ready[0], 1)]).await.unwrap(), vec![]);
    assert_eq!(ledger.release(vec![release(ready[0], 2)]).await.unwrap().len(), 1);
    let unknown = ShardId { request: RequestId::new(), stage: 0, index: 0 };
    assert_eq!(ledger.take_back(unknown, 1, Outcome::Unsupported, "whose?", 3000).await.unwrap().strays, 1);
}

#[tokio::test]
async fn a_second_owner_is_refused_and_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let _ledger = open(folder.path());
    let error = SqliteLedger::open(folder.path(), Arc::new(ThreeAttempts)).unwrap_err();
    assert!(
        matches!(&error, Error::Owned { holder, .. } if holder.contains(&std::process::id().to_string())),
        "{error}"
    );
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).close().await;
    let database = rusqlite::Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    let error = SqliteLedger::open(folder.path(), Arc::new(ThreeAttempts)).unwrap_err();
    assert!(matches!(error, Error::NewerSchema { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn retention_takes_what_ended_and_was_read_and_a_backup_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let (request, ready) = started(&ledger, 1).await;
    ledger.release(vec![release(ready[0], 1)]).await.unwrap();
    ledger.apply(vec![event(RunId::new(), ready[0], 1, Some(Outcome::Succeeded))], 3000).await.unwrap();
    ledger.cancel(request, 4000).await.unwrap();
    assert_eq!(ledger.cancel(request, 5000).await.unwrap(), Changes::default());
    let copy = folder.path().join("copy.sqlite3");
    ledger.backup(&copy).await.unwrap();
    assert!(ledger.backup(&copy).await.is_err(), "a backup overwrites nothing");

    assert_eq!(ledger.prune(9000, HISTORY, 10).await.unwrap().requests, 0, "ClickHouse has not read it");
    ledger.set_watermark("history", 1).await.unwrap();
    assert_eq!(ledger.prune(4000, HISTORY, 10).await.unwrap().requests, 0, "it is not old enough");
    let pruned = ledger.prune(9000, HISTORY, 10).await.unwrap();
    assert_eq!((pruned.requests, pruned.events), (1, 1));
    let listing = Listing { tenant: "acme".to_owned(), state: None, before: None, limit: 10 };
    assert_eq!(ledger.list(listing).await.unwrap(), (vec![], None));

    let restored = tempfile::tempdir().unwrap();
    std::fs::copy(&copy, restored.path().join("ledger.sqlite3")).unwrap();
    assert_eq!(state(&open(restored.path()), request).await, RequestState::Cancelled);
}

#[tokio::test]
async fn a_full_disk_refuses_and_loses_nothing() {
    // A file system of its own, so that it is really full.
    let folder = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "forecastle-test"])
        .arg(folder.path())
        .status()
        .expect("this test needs mount(8)");
    assert!(mounted.success(), "this test mounts a small tmpfs: run it as root");
    let _unmount = Unmount(folder.path().to_owned());
    let ledger = open(folder.path());
    let mut accepted = Vec::new();
    let error = loop {
        let mut admission = admission(None);
        admission.body.labels.insert("pad".to_owned(), "x".repeat(20_000));
        match ledger.admit(admission).await {
            Ok(admitted) => accepted.push(admitted.request),
            Err(error) => break error,
        }
        assert!(accepted.len() < 1000, "the disk never filled");
    };
    assert!(matches!(error, Error::DiskFull), "{error:?}");
    assert!(error.is_retryable());
    for request in &accepted {
        assert_eq!(state(&ledger, *request).await, RequestState::Admitted);
    }
    ledger.close().await;
    drop(ledger);
    assert_eq!(open(folder.path()).unplanned(1000).await.unwrap(), accepted);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        // Lazy: the ledger may still be open when a test fails.
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Release(usize),
    Claim(usize),
    End(usize, Outcome),
    Repeat(usize),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Succeeded),
        1 => Just(Outcome::OutOfMemory),
        1 => Just(Outcome::Drained),
        1 => Just(Outcome::WorkerLost),
    ];
    let step = prop_oneof![
        3 => any::<usize>().prop_map(Step::Release),
        4 => any::<usize>().prop_map(Step::Claim),
        4 => (any::<usize>(), outcome).prop_map(|(run, outcome)| Step::End(run, outcome)),
        2 => any::<usize>().prop_map(Step::Repeat),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is released, claimed, ended, repeated and restarted, in whatever order: a shard wins once, a stage
    /// fires once, attempts are numbered without gaps, and what the ledger says of itself is true.
    #[test]
    fn whatever_arrives_a_shard_wins_once_and_a_stage_fires_once(steps in steps()) {
        tokio::runtime::Runtime::new().unwrap().block_on(async move {
            let folder = tempfile::tempdir().unwrap();
            let mut ledger = open(folder.path());
            let (request, mut ready) = started(&ledger, 4).await;
            let mut attempts: HashMap<ShardId, u32> = HashMap::new();
            let mut ordered: Vec<(ShardId, u32)> = Vec::new();
            let mut runs: Vec<(RunId, ShardId, u32)> = Vec::new();
            let mut sent: Vec<RunEvent> = Vec::new();
            let (mut fired, mut finished) = (0, 0);
            for step in steps {
                let events = match step {
                    Step::Release(pick) if !ready.is_empty() => {
                        let shard = ready.swap_remove(pick % ready.len());
                        let attempt = attempts.entry(shard).or_insert(0);
                        let done = ledger.release(vec![release(shard, *attempt + 1)]).await.unwrap();
                        if !done.is_empty() {
                            *attempt += 1;
                            ordered.push((shard, *attempt));
                        }
                        continue;
                    }
                    Step::Claim(pick) if !ordered.is_empty() => {
                        let (shard, attempt) = ordered[pick % ordered.len()];
                        let run = RunId::new();
                        runs.push((run, shard, attempt));
                        vec![event(run, shard, attempt, None)]
                    }
                    Step::End(pick, outcome) if !runs.is_empty() => {
                        let (run, shard, attempt) = runs[pick % runs.len()];
                        vec![event(run, shard, attempt, Some(outcome))]
                    }
                    Step::Repeat(pick) if !sent.is_empty() => vec![sent[pick % sent.len()].clone()],
                    Step::Restart => {
                        ledger.close().await;
                        drop(ledger);
                        ledger = open(folder.path());
                        continue;
                    }
                    _ => continue,
                };
                sent.extend(events.iter().cloned());
                let changes = ledger.apply(events, 4000).await.unwrap();
                finished += changes.finished.len();
                for shard in shards(&changes) {
                    fired += usize::from(shard.stage == 1 && !attempts.contains_key(&shard));
                    ready.push(shard);
                }
            }
            assert!(fired <= 1 && finished <= 1);
            let events = ledger.events_after(0, 1000).await.unwrap();
            let mut wins: BTreeMap<ShardId, u32> = BTreeMap::new();
            for event in events.iter().filter(|e| e.winning) {
                *wins.entry(event.event.shard).or_default() += 1;
            }
            assert!(wins.values().all(|n| *n == 1));
            let status = ledger.status(request).await.unwrap().unwrap();
            assert_eq!(wins.len(), status.stages.iter().map(|s| s.succeeded as usize).sum::<usize>());
            assert_eq!(status.state() == RequestState::Succeeded, wins.len() == 5);
            assert_eq!(fired == 1, wins.keys().filter(|s| s.stage == 0).count() == 4);
            // Ready in memory and in the ledger are the same, but for what a failed request takes along.
            if status.state() == RequestState::Running {
                let known: Vec<_> = ready.clone();
                let stored = ledger.specs(known).await.unwrap();
                assert!(stored.iter().all(|spec| matches!(spec.state, ShardState::Ready | ShardState::Succeeded)));
                let open: u32 = ledger.open_work().await.unwrap().ready.iter().map(|r| r.count).sum();
                let ready_now = stored.iter().filter(|s| s.state == ShardState::Ready).count();
                assert_eq!(open as usize, ready_now);
            }
        });
    }
}

/// A run that was stopped and left a checkpoint.
fn drained(shard: ShardId, attempt: u32, checkpoint: &v1::Checkpoint) -> RunEvent {
    let mut event = event(RunId::new(), shard, attempt, Some(Outcome::Drained));
    if let EventKind::Completed(completed) = &mut event.kind {
        completed.checkpoint = Some(checkpoint.clone());
    }
    event
}

#[tokio::test]
async fn a_checkpoint_stays_with_the_shard_until_an_attempt_fails_or_leaves_another() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = |name: &str| v1::Checkpoint { uri: format!("file:///{name}"), bytes: 1, run_id: name.to_owned() };
    let given = async |ledger: &SqliteLedger, shard| ledger.specs(vec![shard]).await.unwrap()[0].checkpoint.clone();
    let ledger = open(folder.path());
    let (_, ready) = started(&ledger, 1).await;
    let shard = ready[0];
    assert_eq!(given(&ledger, shard).await, None);
    ledger.release(vec![release(shard, 1)]).await.unwrap();
    ledger.apply(vec![drained(shard, 1, &checkpoint("one"))], 4000).await.unwrap();
    assert_eq!(given(&ledger, shard).await, Some(checkpoint("one")));
    // The frontend dies between ordering and publishing: what it publishes again says the same.
    ledger.release(vec![release(shard, 2)]).await.unwrap();
    ledger.close().await;
    let ledger = open(folder.path());
    assert_eq!(given(&ledger, shard).await, Some(checkpoint("one")));
    // Nobody's fault, and nothing new to say: the old word counts.
    ledger.apply(vec![event(RunId::new(), shard, 2, Some(Outcome::Preempted))], 5000).await.unwrap();
    assert_eq!(given(&ledger, shard).await, Some(checkpoint("one")));

    let (_, ready) = started(&ledger, 1).await;
    let shard = ready[0];
    ledger.release(vec![release(shard, 1)]).await.unwrap();
    ledger.apply(vec![drained(shard, 1, &checkpoint("two"))], 4000).await.unwrap();
    ledger.release(vec![release(shard, 2)]).await.unwrap();
    ledger.apply(vec![event(RunId::new(), shard, 2, Some(Outcome::TaskError))], 5000).await.unwrap();
    assert_eq!(given(&ledger, shard).await, None, "it may have failed for what it was given");
}
