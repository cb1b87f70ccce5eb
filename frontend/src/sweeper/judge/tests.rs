//! Each row of the judge's table, and what must not be decided.

use std::sync::Arc;

use forecastle_protos::ids::RequestId;
use forecastle_resources::{Priority, SizeClass};

use super::*;
use crate::ledger::LiveRun;

const GRACE: Duration = Duration::from_secs(10);
/// Between two looks.
const STEP: Duration = Duration::from_secs(2);
const NOON_MS: u64 = 1_800_000_000_000;

/// A fleet, a ledger and queues that a test changes, and the judge who looks at them.
struct Court {
    judge: Judge,
    start: Instant,
    now: Instant,
    /// How far the machine's clock has jumped.
    jumped_ms: u64,
    fleet: FleetView,
    claims: Vec<Claim>,
    unclaimed: Vec<Unclaimed>,
    empty: HashSet<String>,
    no_event_waits: bool,
}

impl Court {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            judge: Judge::new(GRACE),
            start,
            now: start,
            jumped_ms: 0,
            fleet: FleetView::default(),
            claims: Vec::new(),
            unclaimed: Vec::new(),
            empty: HashSet::new(),
            no_event_waits: true,
        }
    }

    fn now_ms(&self) -> u64 {
        NOON_MS + self.jumped_ms + millis(self.now - self.start)
    }

    /// A run that `worker` has claimed just now.
    fn claim(&mut self, worker: WorkerId, timeout_ms: u64) -> RunId {
        let shard = ShardId { request: RequestId::new(), stage: 0, index: 0 };
        let run = LiveRun { run: RunId::new(), shard, attempt: 1, worker, claimed_ms: self.now_ms(), unwanted: false };
        self.claims.push(Claim { run, reservation: None, timeout_ms });
        run.run
    }

    /// A report of `worker` that names the runs in `leases`, and `offers` as in its hands.
    fn report(&mut self, worker: WorkerId, leases: &[RunId], offers: &[&Unclaimed]) {
        let leases = self.claims.iter().filter(|claim| leases.contains(&claim.run.run));
        let leases = leases.map(|claim| v1::LeaseReport {
            run_id: claim.run.run.to_string(),
            shard_id: claim.run.shard.to_string(),
            attempt: claim.run.attempt,
            since_unix_ms: claim.run.claimed_ms,
            memory_bytes_now: 4096,
            ..Default::default()
        });
        let offers = offers
            .iter()
            .map(|attempt| v1::OfferReport { shard_id: attempt.shard.to_string(), attempt: attempt.attempt });
        let report = v1::LoadReport {
            worker_id: worker.to_string(),
            fleet: "f".to_owned(),
            sequence: millis(self.now - self.start) + 1,
            at_unix_ms: self.now_ms(),
            leases: leases.collect(),
            offers: offers.collect(),
            ..Default::default()
        };
        self.fleet.hear(report, self.now).expect("a worker's id");
    }

    fn attempt(&mut self) -> Unclaimed {
        let queue = names::shard_queue("f", Priority::Standard, SizeClass::S);
        let shard = ShardId { request: RequestId::new(), stage: 0, index: 0 };
        let attempt = Unclaimed { shard, attempt: 2, queue, released_ms: 0 };
        self.unclaimed.push(attempt.clone());
        attempt
    }

    fn look(&mut self) -> Verdict {
        self.judge.look(&Scene {
            fleet: &self.fleet,
            claims: &self.claims,
            unclaimed: &self.unclaimed,
            empty: &self.empty,
            no_event_waits: self.no_event_waits,
            now: self.now,
            now_ms: self.now_ms(),
        })
    }

    /// Looks every [`STEP`] for `duration`, after `before` each, and answers with what was decided, by kind, and when.
    fn watch(&mut self, duration: Duration, mut before: impl FnMut(&mut Self)) -> Vec<(u64, Decision)> {
        let until = self.now + duration;
        let mut decided = Vec::new();
        while self.now < until {
            self.now += STEP;
            before(self);
            let at = (self.now - self.start).as_secs();
            decided.extend(self.look().decisions.into_iter().map(|decision| (at, decision)));
        }
        decided
    }
}

fn kinds(decided: &[(u64, Decision)]) -> Vec<(u64, DecisionKind)> {
    decided.iter().map(|(at, decision)| (*at, decision.kind)).collect()
}

#[test]
fn a_run_whose_worker_is_silent_for_the_grace_is_lost_with_what_it_used_last() {
    let mut court = Court::new();
    let (silent, alive) = (WorkerId::new(), WorkerId::new());
    let (lost, kept) = (court.claim(silent, 0), court.claim(alive, 0));
    court.look();
    court.now += STEP;
    court.report(silent, &[lost], &[]);
    let decided = court.watch(GRACE, |court| court.report(alive, &[kept], &[]));
    assert_eq!(kinds(&decided), [(12, DecisionKind::Lost)]);
    let decision = &decided[0].1;
    assert_eq!((decision.run, decision.worker), (Some(lost), Some(silent)));
    assert_eq!(decision.why, format!("worker {silent} has sent no load report for 10s"));
    let usage = decision.usage.as_ref().expect("it was reported once");
    assert_eq!((usage.memory_bytes, usage.duration_ms, usage.source.as_str()), (4096, 2000, "load-report"));
    assert_eq!(decision.evidence, r#"{"grace_ms":10000,"silent_ms":10000}"#);
}

#[test]
fn a_worker_that_was_never_heard_of_has_the_grace_to_report_its_claim() {
    let mut court = Court::new();
    court.claim(WorkerId::new(), 0);
    court.look();
    let decided = court.watch(GRACE, |_| {});
    assert_eq!(kinds(&decided), [(10, DecisionKind::Lost)]);
    assert!(decided[0].1.usage.is_none());
}

#[test]
fn a_jump_of_the_clock_decides_nothing() {
    let mut court = Court::new();
    let worker = WorkerId::new();
    let unreported = court.claim(WorkerId::new(), 0);
    let bounded = court.claim(worker, 60_000);
    court.look();
    court.now += STEP;
    court.report(worker, &[bounded], &[]);
    court.jumped_ms = 24 * 3_600_000;
    assert_eq!(court.look(), Verdict::default());
    // Its worker's clock has not jumped: it does not agree.
    for worker in court.fleet.workers.values_mut() {
        worker.report.at_unix_ms = NOON_MS + 2000;
    }
    assert_eq!(court.look(), Verdict::default(), "{unreported} was claimed 2 seconds ago");
}

#[test]
fn a_living_worker_that_knows_nothing_of_its_run_has_lost_it_unless_word_of_it_may_wait() {
    let mut court = Court::new();
    let worker = WorkerId::new();
    let run = court.claim(worker, 0);
    court.no_event_waits = false;
    let decided = court.watch(GRACE * 3, |court| court.report(worker, &[], &[]));
    assert_eq!(kinds(&decided), []);
    court.no_event_waits = true;
    // Named once, it is suspected anew.
    let decided = court.watch(STEP * 4, |court| court.report(worker, &[], &[]));
    assert_eq!(kinds(&decided), []);
    court.now += STEP;
    court.report(worker, &[run], &[]);
    assert_eq!(court.look(), Verdict::default());
    let began = (court.now - court.start).as_secs();
    let decided = court.watch(GRACE + STEP, |court| court.report(worker, &[], &[]));
    assert_eq!(kinds(&decided), [(began + 2 + 10, DecisionKind::Lost)]);
    assert!(decided[0].1.why.contains("has known nothing of the run for 10s"), "{}", decided[0].1.why);
}

#[test]
fn a_run_past_its_limit_is_told_to_stop_at_every_look_and_given_up_after_another_grace() {
    let mut court = Court::new();
    let worker = WorkerId::new();
    let (bounded, free) = (court.claim(worker, 5000), court.claim(worker, 0));
    let decided = court.watch(Duration::from_secs(30), |court| court.report(worker, &[bounded, free], &[]));
    let expected: Vec<_> = [16, 18, 20, 22, 24]
        .map(|at| (at, DecisionKind::Overdue))
        .into_iter()
        .chain([26, 28, 30].map(|at| (at, DecisionKind::Late)))
        .collect();
    assert_eq!(kinds(&decided), expected, "the ledger makes each once");
    assert!(decided.iter().all(|(_, decision)| decision.run == Some(bounded)));
    assert_eq!(court.look().overdue, [bounded]);
    assert_eq!(decided[0].1.evidence, r#"{"age_ms":16000,"limit_ms":5000}"#);
}

#[test]
fn an_attempt_that_is_nowhere_is_stuck() {
    let mut court = Court::new();
    let worker = WorkerId::new();
    let attempt = court.attempt();
    court.empty.insert(attempt.queue.clone());
    let decided = court.watch(GRACE + STEP, |court| court.report(worker, &[], &[]));
    assert_eq!(kinds(&decided), [(12, DecisionKind::Stuck)]);
    let decision = &decided[0].1;
    assert_eq!((decision.shard, decision.attempt, decision.run), (attempt.shard, 2, None));
    assert!(decision.why.contains("queue forecastle.shards.f.standard.s has been empty"), "{}", decision.why);
}

#[test]
fn an_attempt_is_not_stuck_by_age_alone() {
    let worker = WorkerId::new();
    let never = |what: &str, mut court: Court, before: &mut dyn FnMut(&mut Court, &Unclaimed)| {
        let attempt = court.attempt();
        court.empty.insert(attempt.queue.clone());
        let decided = court.watch(GRACE * 20, |court| before(court, &attempt));
        assert_eq!(kinds(&decided), [], "{what}");
    };
    never("its queue is not empty", Court::new(), &mut |court, _| {
        court.empty.clear();
        court.report(worker, &[], &[]);
    });
    never("a worker has it in hand", Court::new(), &mut |court, attempt| court.report(worker, &[], &[attempt]));
    never("events wait", Court::new(), &mut |court, _| {
        court.no_event_waits = false;
        court.report(worker, &[], &[]);
    });
    let mut court = Court::new();
    court.report(WorkerId::new(), &[], &[]);
    never("somebody who is silent may have it", court, &mut |court, _| court.report(worker, &[], &[]));
    never("it is seen every third time", Court::new(), &mut |court, attempt| {
        let seen = (court.now - court.start).as_secs() % 6 == 0;
        court.report(worker, &[], if seen { std::slice::from_ref(&attempt) } else { &[] });
    });
}

#[test]
fn a_run_that_only_a_worker_knows_is_noticed_at_the_third_look() {
    let mut court = Court::new();
    let worker = WorkerId::new();
    let run = court.claim(worker, 0);
    court.report(worker, &[run], &[]);
    let shard = court.claims.pop().expect("it was claimed").run.shard;
    let fleet = Arc::new(court.fleet.clone());
    let mut unknown = Vec::new();
    for _ in 0..3 {
        court.now += Duration::from_secs(1);
        court.fleet = FleetView::clone(&fleet);
        unknown.push(court.look().unknown);
    }
    assert_eq!(unknown, [vec![], vec![], vec![(run, shard)]]);
}

#[test]
fn after_a_time_without_hearing_anybody_the_judge_begins_anew() {
    let mut court = Court::new();
    let worker = WorkerId::new();
    court.claim(worker, 0);
    let decided = court.watch(STEP * 4, |court| court.report(worker, &[], &[]));
    assert_eq!(kinds(&decided), []);
    court.judge.begin_anew();
    let began = (court.now - court.start).as_secs();
    let decided = court.watch(GRACE + STEP, |court| court.report(worker, &[], &[]));
    assert_eq!(kinds(&decided), [(began + 2 + 10, DecisionKind::Lost)]);
}
