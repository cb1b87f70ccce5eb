//! Failures in the ledger, under the real policy: each class has a budget of its own that outlives restarts, the dead
//! can be replayed and purged, and what was decided stands in the log once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forecastle_frontend::catalogue_store::CatalogueStore;
use forecastle_frontend::failure_policy::CataloguePolicy;
use forecastle_frontend::ledger::sqlite::SqliteLedger;
use forecastle_frontend::ledger::{
    Changes, Counters, DeadListing, Decision, DecisionKind, EventKind, Ledger, LeftBehind, NotDead, Readers, ShardState,
};
use forecastle_protos::ids::{RequestId, RunId, ShardId, WorkerId};
use forecastle_protos::v1::{self, Outcome, RequestState};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::ledger::{admission, event, plan, release, shards};

/// Budgets that are all different, so that none can stand in for another.
const CATALOGUE: &str = r#"
version = 1
[types.archive]
input = "none"
stages = [{ name = "work", units = ["u"], over = "once" }]
[units.u]
task = "test.u"
retry = { errors = 1, out_of_memory = 2, timeouts = 3, lost = 4, backoff = "1ms", maximum_attempts = 9 }
"#;

struct Open {
    ledger: SqliteLedger,
    folder: TempDir,
}

impl Open {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("catalogue.toml"), CATALOGUE).unwrap();
        Self { ledger: open(folder.path()), folder }
    }

    async fn restart(&mut self) {
        self.ledger.close().await;
        self.ledger = open(self.folder.path());
    }

    /// A request of `first` shards, planned.
    async fn started(&self, first: u32, admit: v1::SubmitRequest) -> (RequestId, Vec<ShardId>) {
        let admission = forecastle_frontend::ledger::Admission { body: admit, ..admission(None) };
        let request = self.ledger.admit(admission).await.unwrap().request;
        (request, shards(&self.ledger.record_plan(request, plan(first)).await.unwrap()))
    }

    async fn one(&self) -> (RequestId, ShardId) {
        let (request, ready) = self.started(1, archive()).await;
        (request, ready[0])
    }

    async fn spec(&self, shard: ShardId) -> forecastle_frontend::ledger::ShardSpec {
        self.ledger.specs(vec![shard]).await.unwrap().remove(0)
    }

    /// Makes a shard ready, orders its next attempt, and ends that.
    async fn end_next(&self, shard: ShardId, outcome: Outcome) -> Changes {
        self.ledger.resume(vec![shard]).await.unwrap();
        let attempt = self.spec(shard).await.next_attempt;
        assert_eq!(self.ledger.release(vec![release(shard, attempt)]).await.unwrap().len(), 1);
        self.ledger.apply(vec![event(RunId::new(), shard, attempt, Some(outcome))], 4000).await.unwrap()
    }

    async fn state(&self, request: RequestId) -> RequestState {
        self.ledger.status(request).await.unwrap().unwrap().state()
    }
}

fn open(folder: &Path) -> SqliteLedger {
    let catalogue = Arc::new(CatalogueStore::load(folder.join("catalogue.toml")).unwrap());
    SqliteLedger::open(&folder.join("ledger"), Arc::new(CataloguePolicy::new(catalogue))).unwrap()
}

fn archive() -> v1::SubmitRequest {
    v1::SubmitRequest { request_type: "archive".to_owned(), ..Default::default() }
}

fn listing() -> DeadListing {
    let tenant = "acme".to_owned();
    DeadListing { tenant, request_type: None, reason: None, died_before_ms: None, before: None, limit: 10 }
}

fn decision(kind: DecisionKind, shard: ShardId, attempt: u32, run: Option<RunId>) -> Decision {
    let worker = run.map(|_| WorkerId::new());
    let evidence = r#"{"silentMs":5}"#.to_owned();
    Decision { kind, shard, attempt, run, worker, why: "because".to_owned(), evidence, usage: None, at_ms: 5000 }
}

/// The budgets, written down a second time and more simply: how often each class may end an attempt before its shard
/// is dead, and with which code.
struct Model {
    counters: Counters,
    dead: Option<&'static str>,
}

impl Model {
    fn ends(&mut self, outcome: Outcome) {
        let counters = &mut self.counters;
        let (count, budget, code) = match outcome {
            Outcome::TaskError => (&mut counters.errors, 1, "task-failed"),
            Outcome::PermanentError => (&mut counters.errors, 0, "task-failed"),
            Outcome::OutOfMemory => (&mut counters.out_of_memory, 2, "out-of-memory"),
            Outcome::Timeout => (&mut counters.timeouts, 3, "timed-out"),
            Outcome::WorkerLost => (&mut counters.lost, 4, "poison"),
            Outcome::Unsupported => (&mut counters.returned, u32::MAX, ""),
            _ => {
                counters.uncounted += 1;
                return;
            }
        };
        *count += 1;
        if *count > budget {
            self.dead = Some(code);
        } else if counters.errors + counters.out_of_memory + counters.timeouts + counters.lost + counters.returned >= 9
        {
            self.dead = Some("attempts-exhausted");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever ends a shard's attempts, in whatever order, with restarts in between: every class is counted by itself,
    /// the shard dies when the first budget is spent, by the ledger's count, and not before.
    #[test]
    fn each_class_is_counted_by_itself_whatever_the_order_and_across_restarts(
        steps in proptest::collection::vec((0usize..12, any::<bool>()), 1..40),
    ) {
        const OUTCOMES: [Outcome; 12] = [
            Outcome::TaskError, Outcome::OutOfMemory, Outcome::OutOfMemory, Outcome::Timeout, Outcome::Timeout,
            Outcome::WorkerLost, Outcome::WorkerLost, Outcome::Preempted, Outcome::Drained, Outcome::Cancelled,
            Outcome::Unsupported, Outcome::PermanentError,
        ];
        tokio::runtime::Runtime::new().unwrap().block_on(async move {
            let mut open = Open::new();
            let (request, shard) = open.one().await;
            let mut model = Model { counters: Counters::default(), dead: None };
            for (number, (pick, restart)) in (1..).zip(steps) {
                if restart {
                    open.restart().await;
                }
                model.ends(OUTCOMES[pick]);
                let changes = open.end_next(shard, OUTCOMES[pick]).await;
                let spec = open.spec(shard).await;
                assert_eq!((spec.counters, spec.next_attempt), (model.counters, number + 1));
                if let Some(code) = model.dead {
                    assert_eq!(changes.finished, [request]);
                    let (dead, decisions) = open.ledger.dead_shard(shard).await.unwrap().unwrap();
                    assert_eq!((&*dead.reason.code, dead.attempts, dead.counters), (code, number, model.counters));
                    let kind = if code == "poison" { DecisionKind::Poisoned } else { DecisionKind::Dead };
                    assert_eq!(decisions.iter().map(|d| d.kind).collect::<Vec<_>>(), [kind]);
                    break;
                }
                assert_eq!(open.state(request).await, RequestState::Running);
            }
        });
    }
}

#[tokio::test]
async fn what_the_broker_gives_up_for_its_deliveries_counts_as_a_lost_worker() {
    let open = Open::new();
    let (_, shard) = open.one().await;
    for attempt in 1..=5 {
        open.ledger.release(vec![release(shard, attempt)]).await.unwrap();
        open.ledger.take_back(shard, attempt, Outcome::WorkerLost, "delivery_limit", 3000).await.unwrap();
        assert_eq!(open.spec(shard).await.counters.lost, attempt);
    }
    assert_eq!(open.ledger.dead_shard(shard).await.unwrap().unwrap().0.reason.code, "poison");
}

#[tokio::test]
async fn a_replayed_shard_has_fresh_budgets_and_keeps_what_had_succeeded() {
    let mut open = Open::new();
    let (request, ready) = open.started(3, archive()).await;
    open.end_next(ready[0], Outcome::Succeeded).await;
    // One more is in flight and claimed when the request fails.
    open.ledger.release(vec![release(ready[1], 1)]).await.unwrap();
    let claimed = RunId::new();
    open.ledger.apply(vec![event(claimed, ready[1], 1, None)], 3000).await.unwrap();
    open.end_next(ready[2], Outcome::TaskError).await;
    let end = open.end_next(ready[2], Outcome::TaskError).await;
    assert_eq!((end.finished, end.unwanted), (vec![request], vec![claimed]));
    assert_eq!(open.ledger.open_work().await.unwrap().backing_off, []);

    open.restart().await;
    let replay = open.ledger.replay(ready[2], 6000).await.unwrap().unwrap();
    assert_eq!((replay.request, replay.attempt), (request, 3));
    assert_eq!(shards(&replay.changes), [ready[1], ready[2]]);
    assert_eq!(open.ledger.replay(ready[2], 6000).await.unwrap(), Err(NotDead::Unknown(ready[2])), "once");
    let status = open.ledger.status(request).await.unwrap().unwrap();
    assert_eq!((status.state(), status.error, status.finished_unix_ms), (RequestState::Running, None, 0));
    assert_eq!((status.stages[0].succeeded, status.stages[0].waiting, status.stages[1].waiting), (1, 2, 1));
    // No attempt is minted twice: the one that was in flight keeps its number to itself.
    assert_eq!(open.spec(ready[1]).await.next_attempt, 2);
    assert_eq!(open.spec(ready[2]).await.counters, Counters::default());

    open.end_next(ready[1], Outcome::Succeeded).await;
    open.end_next(ready[2], Outcome::TaskError).await;
    open.end_next(ready[2], Outcome::Succeeded).await;
    let last = ShardId { request, stage: 1, index: 0 };
    open.end_next(last, Outcome::Succeeded).await;
    assert_eq!(open.state(request).await, RequestState::Succeeded);
    assert_eq!(open.ledger.dead(listing()).await.unwrap().0, []);
    let kinds: Vec<_> = open.ledger.decisions_after(0, 10).await.unwrap();
    let kinds: Vec<_> = kinds.iter().map(|d| (d.decision.kind, d.decision.attempt)).collect();
    assert_eq!(kinds, [(DecisionKind::Dead, 2), (DecisionKind::Replayed, 3)]);
}

#[tokio::test]
async fn only_what_failed_and_is_still_of_use_is_replayed() {
    let open = Open::new();
    let (_, shard) = open.one().await;
    assert_eq!(open.ledger.replay(shard, 1).await.unwrap(), Err(NotDead::Unknown(shard)), "it is not dead");
    let unknown = ShardId { request: RequestId::new(), stage: 0, index: 0 };
    assert_eq!(open.ledger.replay(unknown, 1).await.unwrap(), Err(NotDead::Unknown(unknown)));

    let late = forecastle_frontend::ledger::Admission { deadline_ms: Some(9000), ..admission(None) };
    let request = open.ledger.admit(late).await.unwrap().request;
    let shard = shards(&open.ledger.record_plan(request, plan(1)).await.unwrap())[0];
    open.end_next(shard, Outcome::PermanentError).await;
    let refused = open.ledger.replay(shard, 9000).await.unwrap().unwrap_err();
    assert!(matches!(&refused, NotDead::NotReplayable { reason, .. } if reason.contains("deadline")), "{refused}");
    assert!(open.ledger.replay(shard, 8999).await.unwrap().is_ok());
}

#[tokio::test]
async fn the_dead_are_listed_by_type_reason_and_age_and_purged() {
    let open = Open::new();
    let mut dead = Vec::new();
    for outcome in [Outcome::PermanentError, Outcome::PermanentError, Outcome::OutOfMemory] {
        let (_, shard) = open.one().await;
        for _ in 0..if outcome == Outcome::OutOfMemory { 3 } else { 1 } {
            open.end_next(shard, outcome).await;
        }
        dead.insert(0, shard);
    }
    let list = |listing: DeadListing| async {
        let (page, next) = open.ledger.dead(listing).await.unwrap();
        (page.into_iter().map(|d| d.shard).collect::<Vec<_>>(), next)
    };
    assert_eq!(list(listing()).await, (dead.clone(), None), "the latest first");
    let (first, next) = list(DeadListing { limit: 2, ..listing() }).await;
    assert_eq!(first, dead[..2]);
    assert_eq!(list(DeadListing { before: next, ..listing() }).await, (dead[2..].to_vec(), None));
    let of = |reason: &str| DeadListing { reason: Some(reason.to_owned()), ..listing() };
    assert_eq!(list(of("out-of-memory")).await.0, dead[..1]);
    assert_eq!(list(of("poison")).await.0, []);
    assert_eq!(list(DeadListing { request_type: Some("other".to_owned()), ..listing() }).await.0, []);
    assert_eq!(list(DeadListing { tenant: "other".to_owned(), ..listing() }).await.0, []);
    assert_eq!(list(DeadListing { died_before_ms: Some(4000), ..listing() }).await.0, []);
    assert_eq!(list(DeadListing { died_before_ms: Some(4001), ..listing() }).await.0, dead);

    assert_eq!(open.ledger.purge(dead[1], 5000).await.unwrap(), Ok(()));
    assert_eq!(open.ledger.purge(dead[1], 5000).await.unwrap(), Err(NotDead::Unknown(dead[1])));
    assert_eq!(open.ledger.replay(dead[1], 5000).await.unwrap(), Err(NotDead::Unknown(dead[1])));
    assert_eq!(list(listing()).await.0, [dead[0], dead[2]]);
    assert_eq!(open.state(dead[1].request).await, RequestState::Failed);
    // Retention takes the dead along with their requests, and what was logged.
    assert_eq!(open.ledger.prune(10_000, Readers::default(), 10).await.unwrap().requests, 3);
    assert_eq!(list(listing()).await.0, []);
    assert_eq!(open.ledger.decisions_after(0, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_decision_is_carried_out_once_and_a_workers_own_word_replaces_it() {
    let open = Open::new();
    let (_, shard) = open.one().await;
    open.ledger.release(vec![release(shard, 1)]).await.unwrap();
    let run = RunId::new();
    open.ledger.apply(vec![event(run, shard, 1, None)], 3000).await.unwrap();
    let claims = open.ledger.claims().await.unwrap();
    assert_eq!((claims.len(), claims[0].run.run, claims[0].timeout_ms), (1, run, 60_000));
    assert!(claims[0].reservation.is_some());

    for overdue in [1, 0] {
        let decided = vec![decision(DecisionKind::Overdue, shard, 1, Some(run))];
        let decided = open.ledger.decide(decided, 5000).await.unwrap();
        assert_eq!((decided.made.len(), decided.changes), (overdue, Changes::default()));
    }
    let late = decision(DecisionKind::Late, shard, 1, Some(run));
    let late = Decision { usage: Some(v1::Usage { memory_bytes: 99, ..Default::default() }), ..late };
    let decided = open.ledger.decide(vec![late.clone(), late.clone()], 5000).await.unwrap();
    assert_eq!((decided.made.len(), shards(&decided.changes)), (1, vec![shard]));
    assert_eq!(open.spec(shard).await.counters, Counters { timeouts: 1, ..Counters::default() });
    let recorded = open.ledger.events_after(0, 10).await.unwrap();
    let EventKind::Completed(completed) = &recorded[0].event.kind else { panic!("it is a completion") };
    assert!(completed.declared && completed.outcome() == Outcome::Timeout);
    assert_eq!((completed.usage.as_ref().unwrap().memory_bytes, &*completed.unit), (99, "u"));

    // The worker had only been slow to say so.
    let own = open.ledger.apply(vec![event(run, shard, 1, Some(Outcome::Succeeded))], 6000).await.unwrap();
    assert_eq!(own.recorded, 1);
    assert_eq!(open.ledger.decide(vec![late], 7000).await.unwrap().made, []);
    let events = open.ledger.events_after(0, 10).await.unwrap();
    assert_eq!((events.len(), events[0].winning), (1, true));
    // Two numbers were given, one event is there: the count is of events.
    assert_eq!(open.ledger.lag("history").await.unwrap(), 1);
    open.ledger.set_watermark("history", events[0].seq).await.unwrap();
    assert_eq!(open.ledger.lag("history").await.unwrap(), 0);
    let kinds: Vec<_> = open.ledger.decisions_after(0, 10).await.unwrap();
    assert_eq!(kinds.iter().map(|d| d.decision.kind).collect::<Vec<_>>(), [DecisionKind::Overdue, DecisionKind::Late]);
    assert_eq!((&*kinds[0].unit, &*kinds[0].request_type, &*kinds[0].tenant), ("u", "archive", "acme"));
}

#[tokio::test]
async fn a_run_is_of_no_use_once_its_shard_has_ended_or_it_was_declared_to_have_timed_out() {
    let open = Open::new();
    let (_, ready) = open.started(2, archive()).await;
    open.ledger.release(ready.iter().map(|s| release(*s, 1)).collect()).await.unwrap();
    let (late, lost, waiting) = (RunId::new(), RunId::new(), RunId::new());
    let claims = vec![event(late, ready[0], 1, None), event(lost, ready[1], 1, None)];
    open.ledger.apply(claims, 3000).await.unwrap();
    let nobodys = (RunId::new(), ShardId { request: RequestId::new(), stage: 0, index: 0 });
    let beyond = (RunId::new(), ShardId { index: 9, ..ready[0] });
    let all = vec![(late, ready[0]), (lost, ready[1]), (waiting, ready[1]), nobodys, beyond];
    assert_eq!(open.ledger.of_no_use(all.clone()).await.unwrap(), [nobodys.0, beyond.0]);
    let decisions = vec![
        decision(DecisionKind::Late, ready[0], 1, Some(late)),
        decision(DecisionKind::Lost, ready[1], 1, Some(lost)),
    ];
    assert_eq!(open.ledger.decide(decisions, 5000).await.unwrap().made.len(), 2);
    assert_eq!(
        open.ledger.of_no_use(all.clone()).await.unwrap(),
        [late, nobodys.0, beyond.0],
        "a lost run may still win"
    );
    open.end_next(ready[1], Outcome::Succeeded).await;
    assert_eq!(open.ledger.of_no_use(all).await.unwrap(), [late, lost, waiting, nobodys.0, beyond.0]);
}

#[tokio::test]
async fn what_was_given_up_is_left_behind_once_its_shard_has_ended_and_only_until_it_is_forgotten() {
    let open = Open::new();
    let (request, ready) = open.started(3, archive()).await;
    open.ledger.release(ready.iter().map(|s| release(*s, 1)).collect()).await.unwrap();
    let (lost, after_all, late) = (RunId::new(), RunId::new(), RunId::new());
    let runs = [lost, after_all, late];
    let claims = runs.iter().zip(&ready).map(|(run, shard)| event(*run, *shard, 1, None)).collect();
    open.ledger.apply(claims, 3000).await.unwrap();
    let decisions = vec![
        decision(DecisionKind::Lost, ready[0], 1, Some(lost)),
        decision(DecisionKind::Lost, ready[1], 1, Some(after_all)),
        decision(DecisionKind::Late, ready[2], 1, Some(late)),
    ];
    assert_eq!(open.ledger.decide(decisions, 5000).await.unwrap().made.len(), 3);
    assert_eq!(open.ledger.left_behind(10).await.unwrap(), [], "they may still win");

    open.ledger.apply(vec![event(after_all, ready[1], 1, Some(Outcome::Succeeded))], 6000).await.unwrap();
    let left = |shard, run, won| LeftBehind { shard, run, won };
    assert_eq!(open.ledger.left_behind(10).await.unwrap(), [left(ready[1], after_all, true)]);
    open.ledger.cancel(request, 7000).await.unwrap();
    let mut all = open.ledger.left_behind(10).await.unwrap();
    all.sort_by_key(|left| left.shard);
    let expected = [left(ready[0], lost, false), left(ready[1], after_all, true), left(ready[2], late, false)];
    assert_eq!(all, expected);
    assert_eq!(open.ledger.left_behind(1).await.unwrap().len(), 1);
    open.ledger.forget_left_behind(vec![lost, after_all]).await.unwrap();
    assert_eq!(open.ledger.left_behind(10).await.unwrap(), [left(ready[2], late, false)]);
}

#[tokio::test]
async fn a_stuck_attempt_is_followed_by_the_next_unless_somebody_claimed_it() {
    let open = Open::new();
    let (_, ready) = open.started(2, archive()).await;
    open.ledger.release(ready.iter().map(|s| release(*s, 1)).collect()).await.unwrap();
    assert_eq!(open.ledger.unclaimed(9000..=9000).await.unwrap(), [], "the broker has not confirmed them");
    open.ledger.confirm(ready.iter().map(|s| (*s, 1)).collect()).await.unwrap();
    assert_eq!(open.ledger.unclaimed(2000..=9000).await.unwrap(), [], "they are not old enough");
    let unclaimed = open.ledger.unclaimed(2001..=9000).await.unwrap();
    assert_eq!(
        unclaimed.iter().map(|u| (u.shard, u.attempt, &*u.queue)).collect::<Vec<_>>(),
        [(ready[0], 1, "q"), (ready[1], 1, "q")]
    );
    open.ledger.apply(vec![event(RunId::new(), ready[1], 1, None)], 3000).await.unwrap();
    let stuck: Vec<_> = ready.iter().map(|s| decision(DecisionKind::Stuck, *s, 1, None)).collect();
    let decided = open.ledger.decide(stuck.clone(), 5000).await.unwrap();
    assert_eq!(decided.made, stuck[..1]);
    assert_eq!(decided.changes.left_queue, [(ready[0], 1)]);
    assert_eq!(open.spec(ready[0]).await.counters, Counters { returned: 1, ..Counters::default() });
    assert_eq!(open.ledger.decide(stuck, 5000).await.unwrap().made, []);
}

#[tokio::test]
async fn what_is_infeasible_fails_and_says_why() {
    let open = Open::new();
    let (request, ready) = open.started(2, archive()).await;
    open.ledger.release(vec![release(ready[1], 1)]).await.unwrap();
    let flying = open.ledger.refuse(ready[1], "infeasible", "too large", 3000).await.unwrap();
    assert_eq!(flying, Changes::default(), "it was released meanwhile");
    let changes = open.ledger.refuse(ready[0], "infeasible", "it reserves 9 GiB", 3000).await.unwrap();
    assert_eq!(changes.finished, [request]);
    let error = open.ledger.status(request).await.unwrap().unwrap().error.unwrap();
    assert!(error.code == "infeasible" && error.message.contains("it reserves 9 GiB"), "{error:?}");
    assert_eq!(open.spec(ready[0]).await.state, ShardState::Failed);
    assert_eq!(open.ledger.replay(ready[0], 4000).await.unwrap().unwrap().attempt, 1);
}

#[tokio::test]
async fn a_ledger_of_the_first_version_is_brought_up_to_date_and_its_dead_are_found() {
    let mut open = Open::new();
    let (_, ready) = open.started(3, archive()).await;
    open.end_next(ready[1], Outcome::PermanentError).await;
    open.ledger.close().await;
    let database = rusqlite::Connection::open(open.folder.path().join("ledger/ledger.sqlite3")).unwrap();
    database
        .execute_batch(
            "DROP TABLE dead; DROP TABLE decisions; DROP TABLE stage_forecasts; DROP TABLE event_gaps; DROP TABLE given_up;
             ALTER TABLE exceptions DROP COLUMN returned; ALTER TABLE requests DROP COLUMN sent_sha256; PRAGMA user_version = 1",
        )
        .unwrap();
    drop(database);
    open.ledger = self::open(open.folder.path());
    let (dead, _) = open.ledger.dead(listing()).await.unwrap();
    assert_eq!(dead.iter().map(|d| (d.shard, &*d.reason.code)).collect::<Vec<_>>(), [(ready[1], "task-failed")]);
    assert_eq!(
        dead[0].reason.message,
        open.ledger.status(ready[1].request).await.unwrap().unwrap().error.unwrap().message
    );
    assert!(open.ledger.replay(ready[1], 5000).await.unwrap().is_ok());
}

/// The limit and the prediction of a run grow with each timeout.
#[test]
fn a_timeout_grows_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("catalogue.toml"), CATALOGUE).unwrap();
    let catalogue = CatalogueStore::load(folder.path().join("catalogue.toml")).unwrap();
    let current = catalogue.current();
    let unit = current.unit("u").unwrap();
    let limits = [0, 1, 2, 3].map(|timeouts| forecastle_frontend::forecasting::time_limit(unit, timeouts));
    assert_eq!(limits, [1, 2, 4, 8].map(Duration::from_hours));
}
