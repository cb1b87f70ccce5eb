//! The events of one run, with everything that history needs copied from its assignment.

use forecastle_protos::ids::{RunId, WorkerId};
use forecastle_protos::v1::{self, run_event::Kind};

use crate::adjustment::HeldRecord;
use crate::assignment::Assignment;
use crate::execution::Ending;

/// When a run was claimed, started and ended; milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Times {
    pub(crate) claimed: u64,
    pub(crate) started: u64,
    pub(crate) ended: u64,
}

/// What all events of one worker have in common.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) worker: WorkerId,
    pub(crate) node_class: String,
}

impl Source {
    /// The event of a claim.
    pub(crate) fn claimed(&self, run: RunId, assignment: &Assignment, at: u64) -> v1::RunEvent {
        let reservation = Some((&assignment.headers.reservation).into());
        self.event(run, assignment, at, Kind::Claimed(v1::Claimed { reservation }))
    }

    /// The event of an ending.
    pub(crate) fn completed(
        &self,
        run: RunId,
        assignment: &Assignment,
        times: Times,
        ending: Ending,
        held: HeldRecord,
    ) -> v1::RunEvent {
        let Assignment { headers, shard } = assignment;
        let completed = v1::Completed {
            outcome: ending.outcome.into(),
            error: ending.error,
            exit_code: ending.exit_code,
            signal: ending.signal,
            reservation: Some((&headers.reservation).into()),
            usage: ending.usage,
            started_unix_ms: times.started,
            ended_unix_ms: times.ended,
            waited_ms: waited_ms(assignment, times.claimed),
            output_uri: ending.output_uri,
            files: ending.files,
            inline_json: ending.inline_json,
            log_tail: ending.log_tail,
            node_class: self.node_class.clone(),
            request_type: headers.request_type.clone(),
            tenant: headers.tenant.clone(),
            priority: headers.priority.to_string(),
            size_class: headers.class.to_string(),
            stage: shard.stage.clone(),
            unit: shard.unit.clone(),
            input_bytes: shard.items.iter().fold(0, |sum, item| sum.saturating_add(item.bytes)),
            input_items: u32::try_from(shard.items.len()).unwrap_or(u32::MAX),
            forecast: shard.forecast.clone(),
            checkpoint: ending.checkpoint,
            declared: false,
            adjustments: held.changes,
            further_adjustments: held.further_changes,
            held_memory_byte_seconds: held.memory_byte_seconds,
            held_core_seconds: held.core_seconds,
        };
        self.event(run, assignment, times.ended, Kind::Completed(completed))
    }

    fn event(&self, run: RunId, assignment: &Assignment, at_unix_ms: u64, kind: Kind) -> v1::RunEvent {
        v1::RunEvent {
            run_id: run.to_string(),
            request_id: assignment.headers.shard.request.to_string(),
            shard_id: assignment.headers.shard.to_string(),
            attempt: assignment.headers.attempt,
            worker_id: self.worker.to_string(),
            at_unix_ms,
            kind: Some(kind),
        }
    }
}

/// From release to claim, in milliseconds; zero if the frontend's clock is ahead or the shard does not say.
pub(crate) fn waited_ms(assignment: &Assignment, claimed_unix_ms: u64) -> u64 {
    match assignment.shard.released_unix_ms {
        0 => 0,
        released => claimed_unix_ms.saturating_sub(released),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use forecastle_protos::v1::Outcome;

    #[test]
    fn an_ending_carries_what_history_needs() {
        let assignment = sample::assignment();
        let source = Source { worker: WorkerId::new(), node_class: "xeon-8".to_owned() };
        let (run, usage) = (RunId::new(), v1::Usage { memory_bytes: 5, ..Default::default() });
        let ending = Ending {
            usage: Some(usage.clone()),
            inline_json: "{}".to_owned(),
            ..Ending::failed(Outcome::TaskError, "it did not work")
        };
        let changes = vec![v1::Adjusted { reason: "steady".to_owned(), ..Default::default() }];
        let held = HeldRecord { changes, further_changes: 3, memory_byte_seconds: 7.0, core_seconds: 0.5 };
        let times = Times { claimed: 1_000_250, started: 1_000_260, ended: 1_000_400 };
        let event = source.completed(run, &assignment, times, ending, held.clone());
        assert_eq!((event.run_id, event.worker_id), (run.to_string(), source.worker.to_string()));
        assert_eq!((event.shard_id, event.attempt), (assignment.headers.shard.to_string(), 1));
        assert_eq!((event.request_id, event.at_unix_ms), (assignment.headers.shard.request.to_string(), 1_000_400));
        let Some(Kind::Completed(completed)) = event.kind else { panic!("no completion") };
        let expected = v1::Completed {
            outcome: Outcome::TaskError.into(),
            error: "it did not work".to_owned(),
            exit_code: -1,
            reservation: Some((&assignment.headers.reservation).into()),
            usage: Some(usage),
            started_unix_ms: 1_000_260,
            ended_unix_ms: 1_000_400,
            waited_ms: 250,
            inline_json: "{}".to_owned(),
            node_class: "xeon-8".to_owned(),
            request_type: "archive".to_owned(),
            tenant: "tests".to_owned(),
            priority: "standard".to_owned(),
            size_class: "s".to_owned(),
            stage: "files".to_owned(),
            unit: "checksum".to_owned(),
            input_bytes: 30,
            input_items: 2,
            forecast: assignment.shard.forecast.clone(),
            adjustments: held.changes,
            further_adjustments: 3,
            held_memory_byte_seconds: 7.0,
            held_core_seconds: 0.5,
            ..Default::default()
        };
        assert_eq!(completed, expected);
    }

    #[test]
    fn a_clock_that_is_ahead_makes_no_negative_wait() {
        let mut assignment = sample::assignment();
        assert_eq!(waited_ms(&assignment, 999_999), 0);
        assignment.shard.released_unix_ms = 0;
        assert_eq!(waited_ms(&assignment, 1_000_000), 0);
    }
}
