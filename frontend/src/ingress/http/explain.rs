//! Where a shard is and why, in words. Pure: the same facts give the same words.

use std::fmt::Write as _;

use forecastle_protos::v1::{self, RequestState};
use forecastle_protos::{ids::WorkerId, names};

use crate::completions::outcome_label;
use crate::fleet::FleetView;
use crate::forecasting::Sized;
use crate::ledger::{EventKind, LiveRun, RequestHead, ShardHistory, ShardSpec, ShardState};

/// What is known of a shard. The parts are read one after another, so that they may differ by a moment.
pub(super) struct Facts<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) spec: &'a ShardSpec,
    pub(super) history: &'a ShardHistory,
    pub(super) status: &'a v1::RequestStatus,
    /// What the next attempt would reserve; nothing if its unit has left the catalogue.
    pub(super) next: Option<&'a Sized>,
    pub(super) fleet: &'a FleetView,
    pub(super) now_ms: u64,
}

/// The explanation.
pub(super) fn explanation(facts: &Facts<'_>) -> v1::ShardExplanation {
    let Facts { head, spec, history, .. } = facts;
    let in_flight = history.in_flight.as_ref();
    let running = wanted_run(history);
    let predicted = Predicted::of(facts);
    let input_bytes = spec.items.iter().fold(0u64, |sum, item| sum.saturating_add(item.bytes));
    v1::ShardExplanation {
        shard_id: spec.shard.to_string(),
        request_id: head.id.to_string(),
        stage: spec.stage_name.clone(),
        unit: spec.unit.clone(),
        state: state(facts).to_owned(),
        attempt: attempt(facts),
        why: why(facts),
        queue: in_flight.map(|attempt| attempt.release.queue.clone()).or_else(|| queue(facts)).unwrap_or_default(),
        forecast: predicted.forecast,
        reservation: predicted.reservation,
        size_class: predicted.size_class,
        input_items: u32::try_from(spec.items.len()).unwrap_or(u32::MAX),
        input_bytes,
        runs: runs(history),
        worker_id: running.map(|run| run.worker.to_string()).unwrap_or_default(),
        run_id: running.map(|run| run.run.to_string()).unwrap_or_default(),
    }
}

/// What was predicted for the current attempt, else for the last one that ended.
#[derive(Default)]
struct Predicted {
    forecast: Option<v1::Forecast>,
    reservation: Option<v1::Reservation>,
    size_class: String,
}

impl Predicted {
    fn of(facts: &Facts<'_>) -> Self {
        if let Some(attempt) = &facts.history.in_flight {
            let release = &attempt.release;
            return Self {
                forecast: Some(release.forecast.clone()),
                reservation: Some((&release.reservation).into()),
                size_class: release.class.to_string(),
            };
        }
        if !facts.spec.state.is_final() {
            return facts.next.map_or_else(Self::default, |next| Self {
                forecast: Some(next.forecast.clone()),
                reservation: Some((&next.reservation).into()),
                size_class: next.class.to_string(),
            });
        }
        last_completed(facts.history).map_or_else(Self::default, |(_, completed)| Self {
            forecast: completed.forecast.clone(),
            reservation: completed.reservation.clone(),
            size_class: completed.size_class.clone(),
        })
    }
}

/// The run that counts: not one that was told to stop.
fn wanted_run(history: &ShardHistory) -> Option<&LiveRun> {
    history.live.iter().find(|run| !run.unwanted)
}

fn last_completed(history: &ShardHistory) -> Option<(u32, &v1::Completed)> {
    history.ended.iter().rev().find_map(|recorded| match &recorded.event.kind {
        EventKind::Completed(completed) => Some((recorded.event.attempt, &**completed)),
        EventKind::Claimed => None,
    })
}

/// The queue that the next attempt would go to.
fn queue(facts: &Facts<'_>) -> Option<String> {
    let next = facts.next.filter(|_| !facts.spec.state.is_final())?;
    Some(names::shard_queue(&facts.head.fleet, facts.head.priority, next.class))
}

fn state(facts: &Facts<'_>) -> &'static str {
    match facts.spec.state {
        ShardState::InFlight if is_claimed(facts.history) => "claimed",
        ShardState::InFlight => "released",
        // A shard that backs off waits like one whose stage has not fired; `why` tells them apart.
        ShardState::Backoff | ShardState::Waiting => "waiting",
        ShardState::Ready => "ready",
        ShardState::Succeeded => "succeeded",
        ShardState::Failed => "failed",
        ShardState::Cancelled => "cancelled",
    }
}

fn is_claimed(history: &ShardHistory) -> bool {
    history.in_flight.as_ref().is_some_and(|attempt| attempt.claimed) || wanted_run(history).is_some()
}

fn attempt(facts: &Facts<'_>) -> u32 {
    match &facts.history.in_flight {
        Some(attempt) => attempt.release.attempt,
        None if facts.spec.state.is_final() => {
            last_completed(facts.history).map_or(facts.spec.next_attempt, |(attempt, _)| attempt)
        }
        None => facts.spec.next_attempt,
    }
}

/// The ended runs. Their logs are left out: they have a route of their own.
fn runs(history: &ShardHistory) -> Vec<v1::RunEvent> {
    history
        .ended
        .iter()
        .map(|recorded| {
            let mut event = v1::RunEvent::from(&recorded.event);
            if let Some(v1::run_event::Kind::Completed(completed)) = &mut event.kind {
                completed.log_tail.clear();
            }
            event
        })
        .collect()
}

fn why(facts: &Facts<'_>) -> String {
    match facts.spec.state {
        ShardState::Waiting => waits_for_stages(facts),
        ShardState::Backoff => backs_off(facts),
        ShardState::Ready => ready(facts),
        ShardState::InFlight => in_flight(facts),
        ShardState::Succeeded => match facts.history.ended.iter().find(|recorded| recorded.winning) {
            Some(winner) => format!("attempt {} succeeded, in run {}", winner.event.attempt, winner.event.run),
            None => "it succeeded".to_owned(),
        },
        ShardState::Failed => match last_completed(facts.history) {
            Some((attempt, completed)) => format!("attempt {attempt} was the last: {}", ending(completed)),
            None => "it failed before any run of it ended".to_owned(),
        },
        ShardState::Cancelled => match (facts.status.state(), &facts.status.error) {
            (RequestState::Failed, Some(error)) => format!("its request failed: {}", error.message),
            (RequestState::Failed, None) => "its request failed".to_owned(),
            _ => "its request was cancelled".to_owned(),
        },
    }
}

fn waits_for_stages(facts: &Facts<'_>) -> String {
    let stages = facts.spec.depends_on.iter().filter_map(|&place| facts.status.stages.get(place as usize));
    let unfinished: Vec<String> = stages
        .filter(|stage| stage.succeeded < stage.shards)
        .map(|stage| format!("stage {} ({} of {} shards have succeeded)", stage.name, stage.succeeded, stage.shards))
        .collect();
    if unfinished.is_empty() {
        return format!("stage {} is about to start", facts.spec.stage_name);
    }
    format!("stage {} waits for {}", facts.spec.stage_name, unfinished.join(" and "))
}

fn backs_off(facts: &Facts<'_>) -> String {
    let mut text = match facts.history.not_before_ms {
        Some(at) if at > facts.now_ms => {
            format!("it backs off for another {} before attempt {}", span(at - facts.now_ms), facts.spec.next_attempt)
        }
        _ => format!("it has backed off and attempt {} is about to become ready", facts.spec.next_attempt),
    };
    if let Some((attempt, completed)) = last_completed(facts.history) {
        // Writing to a string cannot fail.
        let _ = write!(text, "; attempt {attempt} ended: {}", ending(completed));
    }
    text
}

/// Why no live worker could run the next attempt.
fn nobody(facts: &Facts<'_>) -> Option<String> {
    let vector = match (&facts.history.in_flight, facts.next) {
        (Some(attempt), _) => &attempt.release.reservation.vector,
        (None, Some(next)) => &next.reservation.vector,
        (None, None) => return Some(format!("the catalogue has no unit {} any more", facts.spec.unit)),
    };
    facts.fleet.could_run(&facts.head.fleet, &facts.spec.unit, vector).err().map(|error| error.to_string())
}

fn ready(facts: &Facts<'_>) -> String {
    match (nobody(facts), queue(facts)) {
        (Some(reason), _) => format!("it is not released, because no live worker could run it: {reason}"),
        (None, Some(queue)) => format!("it waits for its turn and for room in queue {queue}"),
        (None, None) => "it waits for its turn".to_owned(),
    }
}

fn in_flight(facts: &Facts<'_>) -> String {
    let history = facts.history;
    if let Some(run) = wanted_run(history) {
        let since = span(facts.now_ms.saturating_sub(run.claimed_ms));
        return format!("attempt {} has been running on {} for {since}", run.attempt, worker(facts.fleet, run.worker));
    }
    let Some(attempt) = &history.in_flight else { return "its attempt has just ended".to_owned() };
    let release = &attempt.release;
    if attempt.claimed {
        return format!("attempt {} was claimed, and its end is being recorded", release.attempt);
    }
    let since = span(facts.now_ms.saturating_sub(release.now_ms));
    let mut text = if attempt.confirmed {
        format!(
            "attempt {} was released to queue {} {since} ago and waits for a worker",
            release.attempt, release.queue
        )
    } else {
        format!(
            "attempt {} was ordered {since} ago; the broker has not confirmed its message to queue {} yet",
            release.attempt, release.queue
        )
    };
    if let Some(reason) = nobody(facts) {
        let _ = write!(text, "; now no live worker could run it: {reason}");
    }
    text
}

fn worker(fleet: &FleetView, id: WorkerId) -> String {
    match fleet.workers.get(&id) {
        Some(worker) if !worker.report.worker_name.is_empty() => format!("worker {} ({id})", worker.report.worker_name),
        Some(_) => format!("worker {id}"),
        None => format!("worker {id}, which has not reported lately"),
    }
}

fn ending(completed: &v1::Completed) -> String {
    let label = outcome_label(completed.outcome());
    if completed.error.is_empty() { label.to_owned() } else { format!("{label}, {}", completed.error) }
}

/// A time span as a person would say it, from milliseconds.
fn span(millis: u64) -> String {
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..120_000 => format!("{:.1} s", millis as f64 / 1000.0),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use forecastle_protos::ids::{RequestId, RunId, ShardId};
    use forecastle_resources::{Bytes, CpuMillis, Priority, Reservation, ResourceVector, SizeClass};
    use tokio::time::Instant;

    use super::*;
    use crate::fleet::Worker;
    use crate::ledger::{InFlight, RecordedEvent, Release, RunEvent};

    const NOW: u64 = 1_000_000;
    const QUEUE: &str = "forecastle.shards.default.standard.s";

    /// A shard of unit `compress` in stage `work`, which depends on stage `list`.
    struct Case {
        head: RequestHead,
        spec: ShardSpec,
        history: ShardHistory,
        status: v1::RequestStatus,
        next: Option<Sized>,
        fleet: Arc<FleetView>,
    }

    fn case(state: ShardState) -> Case {
        let shard = ShardId { request: RequestId::new(), stage: 1, index: 4 };
        let stage = |name: &str, succeeded| v1::StageStatus {
            name: name.to_owned(),
            shards: 10,
            succeeded,
            ..Default::default()
        };
        Case {
            head: RequestHead {
                id: shard.request,
                seq: 1,
                tenant: "a".to_owned(),
                request_type: "archive".to_owned(),
                fleet: "default".to_owned(),
                priority: Priority::Standard,
                deadline_ms: None,
                created_ms: NOW - 60_000,
                body: v1::SubmitRequest::default(),
            },
            spec: ShardSpec {
                shard,
                state,
                stage_name: "work".to_owned(),
                unit: "compress".to_owned(),
                items: vec![
                    v1::Item { bytes: 700, ..Default::default() },
                    v1::Item { bytes: 42, ..Default::default() },
                ],
                next_attempt: 2,
                counters: crate::ledger::Counters::default(),
                last_reservation: None,
                checkpoint: None,
                depends_on: vec![0],
            },
            history: ShardHistory::default(),
            status: v1::RequestStatus { stages: vec![stage("list", 3), stage("work", 0)], ..Default::default() },
            next: Some(Sized {
                timeout: Duration::from_hours(1),
                reservation: Reservation::new(
                    ResourceVector::new(CpuMillis(500), Bytes::mib(512)),
                    Duration::from_secs(3),
                ),
                class: SizeClass::S,
                forecast: v1::Forecast { source: "declared".to_owned(), ..Default::default() },
            }),
            fleet: fleet(1024),
        }
    }

    fn fleet(mib: u64) -> Arc<FleetView> {
        let report = v1::LoadReport {
            worker_name: "worker-1".to_owned(),
            fleet: "default".to_owned(),
            units: vec!["compress".to_owned()],
            ..Default::default()
        };
        let capacity = ResourceVector::new(CpuMillis(1000), Bytes::mib(mib));
        let worker = Worker { report, capacity, heard: Instant::now() };
        Arc::new(FleetView { workers: [(WorkerId::new(), worker)].into() })
    }

    impl Case {
        fn explained(&self) -> v1::ShardExplanation {
            explanation(&Facts {
                head: &self.head,
                spec: &self.spec,
                history: &self.history,
                status: &self.status,
                next: self.next.as_ref(),
                fleet: &self.fleet,
                now_ms: NOW,
            })
        }

        fn release(&mut self, confirmed: bool, claimed: bool) {
            let sized = self.next.clone().unwrap();
            let release = Release {
                timeout_ms: 0,
                shard: self.spec.shard,
                attempt: 2,
                reservation: sized.reservation,
                forecast: v1::Forecast { source: "profile".to_owned(), ..Default::default() },
                class: sized.class,
                queue: QUEUE.to_owned(),
                now_ms: NOW - 2500,
            };
            self.history.in_flight = Some(InFlight { release, confirmed, claimed });
        }

        fn end(&mut self, attempt: u32, outcome: v1::Outcome, error: &str, winning: bool) -> RunId {
            let run = RunId::new();
            let completed = v1::Completed {
                outcome: outcome.into(),
                error: error.to_owned(),
                log_tail: "a long log".to_owned(),
                forecast: Some(v1::Forecast { source: "model".to_owned(), ..Default::default() }),
                ..Default::default()
            };
            let kind = EventKind::Completed(Box::new(completed));
            let event =
                RunEvent { run, shard: self.spec.shard, attempt, worker: WorkerId::new(), at_ms: NOW - 5000, kind };
            let seq = i64::try_from(self.history.ended.len()).unwrap() + 1;
            self.history.ended.push(RecordedEvent { seq, winning, event });
            run
        }
    }

    #[test]
    fn a_stage_that_has_not_fired_names_what_it_waits_for() {
        let told = case(ShardState::Waiting).explained();
        assert_eq!(told.state, "waiting");
        assert_eq!(told.why, "stage work waits for stage list (3 of 10 shards have succeeded)");
        assert_eq!((told.input_items, told.input_bytes), (2, 742));
        assert_eq!(told.forecast.unwrap().source, "declared", "what is predicted is told before it is released");
    }

    #[test]
    fn a_ready_shard_waits_for_its_queue_or_for_a_worker_that_could_run_it() {
        let mut case = case(ShardState::Ready);
        let told = case.explained();
        assert_eq!((&*told.state, &*told.queue), ("ready", QUEUE));
        assert_eq!(told.why, format!("it waits for its turn and for room in queue {QUEUE}"));
        case.fleet = fleet(256);
        let why = case.explained().why;
        assert!(why.contains("no live worker could run it") && why.contains("so much memory"), "{why}");
        case.fleet = Arc::default();
        assert!(case.explained().why.contains("fleet default has no live worker"), "{}", case.explained().why);
        case.next = None;
        let told = case.explained();
        assert!(told.why.contains("has no unit compress any more"), "{}", told.why);
        assert_eq!((told.forecast, told.queue), (None, String::new()));
    }

    #[test]
    fn backing_off_says_how_long_and_after_what() {
        let mut case = case(ShardState::Backoff);
        case.history.not_before_ms = Some(NOW + 3200);
        case.end(1, v1::Outcome::TaskError, "exit status 3", false);
        let told = case.explained();
        assert_eq!((&*told.state, told.attempt), ("waiting", 2));
        assert!(told.why.starts_with("it backs off for another 3.2 s before attempt 2"), "{}", told.why);
        assert!(told.why.ends_with("exit status 3"), "{}", told.why);
    }

    #[test]
    fn a_released_shard_names_its_queue_until_a_worker_claims_it() {
        let mut case = case(ShardState::InFlight);
        case.release(true, false);
        let told = case.explained();
        assert_eq!((&*told.state, told.attempt), ("released", 2));
        assert_eq!(told.why, format!("attempt 2 was released to queue {QUEUE} 2.5 s ago and waits for a worker"));
        assert_eq!(told.forecast.unwrap().source, "profile", "the forecast is the one it was released with");
        case.release(false, false);
        assert!(case.explained().why.contains("has not confirmed"), "{}", case.explained().why);
        case.fleet = Arc::default();
        assert!(case.explained().why.contains("now no live worker could run it"), "{}", case.explained().why);
    }

    #[test]
    fn a_running_shard_names_the_worker_of_the_run_that_counts() {
        let mut case = case(ShardState::InFlight);
        case.release(true, true);
        let worker = *case.fleet.workers.keys().next().unwrap();
        let run = |unwanted, worker| LiveRun {
            run: RunId::new(),
            shard: case.spec.shard,
            attempt: 2,
            worker,
            claimed_ms: NOW - 900,
            unwanted,
        };
        case.history.live = vec![run(true, WorkerId::new()), run(false, worker)];
        let told = case.explained();
        assert_eq!(told.state, "claimed");
        assert_eq!(told.why, format!("attempt 2 has been running on worker worker-1 ({worker}) for 900 ms"));
        assert_eq!(told.worker_id, worker.to_string());
        assert_eq!(told.run_id, case.history.live[1].run.to_string());
    }

    #[test]
    fn an_ended_shard_says_how_and_keeps_its_runs_without_their_logs() {
        let mut case = case(ShardState::Succeeded);
        case.end(1, v1::Outcome::OutOfMemory, "killed at 64 MiB", false);
        let winner = case.end(2, v1::Outcome::Succeeded, "", true);
        let told = case.explained();
        assert_eq!((&*told.state, told.attempt), ("succeeded", 2));
        assert_eq!(told.why, format!("attempt 2 succeeded, in run {winner}"));
        assert_eq!(told.forecast.clone().unwrap().source, "model");
        assert_eq!(told.runs.len(), 2);
        assert!(!format!("{told:?}").contains("a long log"));

        case.spec.state = ShardState::Failed;
        case.history.ended.truncate(1);
        let why = case.explained().why;
        assert!(why.starts_with("attempt 1 was the last") && why.ends_with("killed at 64 MiB"), "{why}");
    }

    #[test]
    fn a_cancelled_shard_tells_a_cancelled_request_from_a_failed_one() {
        let mut case = case(ShardState::Cancelled);
        case.status.state = RequestState::Cancelled.into();
        assert_eq!(case.explained().why, "its request was cancelled");
        case.status.state = RequestState::Failed.into();
        case.status.error = Some(crate::intake::detail("task-failed", "", "shard 3 failed"));
        assert_eq!(case.explained().why, "its request failed: shard 3 failed");
    }

    #[test]
    fn parts_that_were_read_at_different_moments_are_explained_all_the_same() {
        for state in ShardState::ALL {
            let mut case = case(state);
            case.status.stages.clear();
            assert!(!case.explained().why.is_empty(), "{state}");
            case.release(true, true);
            assert!(!case.explained().why.is_empty(), "{state}");
        }
    }
}
