//! What follows a failure: the catalogue's budgets, one for each class of failure.
//!
//! | class | budget | pause before the next attempt |
//! | --- | --- | --- |
//! | task error | `retry.errors` | exponential from `retry.backoff`, with jitter |
//! | permanent error | none | |
//! | out of memory | `retry.out_of_memory`; none once the unit's maximum was reserved | none |
//! | timeout | `retry.timeouts` | none |
//! | worker lost | `retry.lost`; a shard that takes down more workers than that is poison | none |
//! | preempted, drained, cancelled by an operator | not counted at all | none |
//! | unsupported, or returned by the broker | only `retry.maximum_attempts` | exponential, with jitter |
//!
//! `retry.maximum_attempts` bounds all that are counted, together. A message that the broker gave up for its deliveries
//! counts as a lost worker. What no worker could ever hold is refused by the dispatcher, as infeasible.

use std::sync::Arc;
use std::time::Duration;

use forecastle_catalogue::{Retry, Unit};
use forecastle_protos::v1::Outcome;

use crate::catalogue_store::CatalogueStore;
use crate::ledger::{Failure, NextStep, RetryPolicy};

/// The longest pause between attempts.
pub const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// The policy of the catalogue that is in force.
#[derive(Debug)]
pub struct CataloguePolicy {
    catalogue: Arc<CatalogueStore>,
}

impl CataloguePolicy {
    /// A policy over `catalogue`.
    pub fn new(catalogue: Arc<CatalogueStore>) -> Self {
        Self { catalogue }
    }
}

impl RetryPolicy for CataloguePolicy {
    fn after(&self, failure: &Failure<'_>) -> NextStep {
        let catalogue = self.catalogue.current();
        // A unit that has left the catalogue keeps the default budgets for what is under way.
        match catalogue.unit(failure.unit) {
            Ok(unit) => decide(failure, &unit.retry, Some(unit)),
            Err(_) => decide(failure, &Retry::default(), None),
        }
    }
}

fn decide(failure: &Failure<'_>, retry: &Retry, unit: Option<&Unit>) -> NextStep {
    let counters = failure.counters;
    let exhausted = |code, what: &str, spent: u32| NextStep::Fail {
        code,
        message: format!("{what} ({spent} of its attempts ended so){}", quoted(failure.error)),
    };
    let at_once = NextStep::Retry { not_before_ms: failure.now_ms };
    let after_a_pause = |failures: u32| {
        let pause = pause(retry.backoff, failures, failure);
        let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        NextStep::Retry { not_before_ms: failure.now_ms.saturating_add(millis) }
    };
    let next = match failure.outcome {
        Outcome::PermanentError => {
            NextStep::Fail { code: "task-failed", message: format!("the task failed{}", quoted(failure.error)) }
        }
        Outcome::TaskError if counters.errors > retry.errors => {
            exhausted("task-failed", "the task keeps failing", counters.errors)
        }
        Outcome::TaskError => after_a_pause(counters.errors),
        Outcome::OutOfMemory => {
            let reserved = failure.reservation.vector.memory;
            match unit.and_then(|unit| unit.maximum.memory) {
                Some(maximum) if reserved >= maximum => NextStep::Fail {
                    code: "out-of-memory",
                    message: format!("it was killed for memory at {reserved}, the most its unit may reserve"),
                },
                _ if counters.out_of_memory > retry.out_of_memory => exhausted(
                    "out-of-memory",
                    &format!("it was killed for memory again, at {reserved}"),
                    counters.out_of_memory,
                ),
                _ => at_once,
            }
        }
        Outcome::Timeout if counters.timeouts > retry.timeouts => {
            exhausted("timed-out", "it ran past its time limit", counters.timeouts)
        }
        Outcome::WorkerLost if counters.lost > retry.lost => {
            exhausted("poison", "it was running on too many workers that were lost", counters.lost)
        }
        Outcome::Timeout | Outcome::WorkerLost | Outcome::Preempted | Outcome::Drained | Outcome::Cancelled => at_once,
        Outcome::Unsupported | Outcome::Unspecified | Outcome::Succeeded => after_a_pause(counters.returned),
    };
    match next {
        // What is not counted ends nothing, however often it happens.
        NextStep::Retry { .. } if is_counted(failure.outcome) && counters.counted() >= retry.maximum_attempts => {
            NextStep::Fail {
                code: "attempts-exhausted",
                message: format!(
                    "{} attempts, the most its unit allows, have ended{}",
                    counters.counted(),
                    quoted(failure.error)
                ),
            }
        }
        next => next,
    }
}

fn is_counted(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::Preempted | Outcome::Drained | Outcome::Cancelled)
}

fn quoted(error: &str) -> String {
    if error.is_empty() { String::new() } else { format!(": {error}") }
}

/// `backoff · 2^(failures − 1)`, at most [`LONGEST_PAUSE`], of which up to a half is taken off: jitter keeps what
/// failed together from coming back together. It is derived from the failure, so that the decision is a pure
/// function.
fn pause(backoff: Duration, failures: u32, failure: &Failure<'_>) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = backoff.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    let mut hash = failure.now_ms ^ u64::from(failure.attempt).rotate_left(32);
    // The finaliser of MurmurHash3, enough to spread neighbouring milliseconds.
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    full.mul_f64(1.0 - 0.5 * (hash % 1024) as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Counters;
    use forecastle_resources::{Bytes, CpuMillis, Reservation, ResourceVector};

    fn after(outcome: Outcome, counters: Counters, attempt: u32) -> NextStep {
        let vector = ResourceVector::new(CpuMillis(100), Bytes::mib(64));
        let reservation = Reservation::new(vector, Duration::from_secs(1));
        let failure = Failure {
            request_type: "t",
            unit: "u",
            attempt,
            outcome,
            error: "it broke",
            counters,
            reservation: &reservation,
            now_ms: 1_000_000,
        };
        decide(&failure, &Retry::default(), None)
    }

    fn code(step: &NextStep) -> &str {
        match step {
            NextStep::Retry { .. } => "retry",
            NextStep::Fail { code, .. } => code,
        }
    }

    #[test]
    fn each_class_has_a_budget_of_its_own() {
        let spent = Counters { errors: 3, ..Counters::default() };
        assert_eq!(code(&after(Outcome::TaskError, spent, 3)), "task-failed");
        assert_eq!(code(&after(Outcome::OutOfMemory, spent, 3)), "retry");
        assert_eq!(code(&after(Outcome::PermanentError, Counters::default(), 1)), "task-failed");
        assert_eq!(code(&after(Outcome::Timeout, Counters { timeouts: 2, ..spent }, 4)), "timed-out");
        assert_eq!(code(&after(Outcome::WorkerLost, Counters { lost: 6, ..spent }, 7)), "poison");
        assert_eq!(code(&after(Outcome::OutOfMemory, Counters { out_of_memory: 5, ..spent }, 6)), "out-of-memory");
    }

    #[test]
    fn what_is_not_counted_ends_nothing_and_all_that_is_ends_at_the_maximum() {
        let many = Counters { uncounted: 1000, ..Counters::default() };
        assert_eq!(code(&after(Outcome::Preempted, many, 1000)), "retry");
        assert_eq!(code(&after(Outcome::TaskError, Counters { errors: 1, ..many }, 1001)), "retry");
        let full = Counters { errors: 2, out_of_memory: 4, timeouts: 1, lost: 4, returned: 1, uncounted: 9 };
        assert_eq!(code(&after(Outcome::Unsupported, full, 21)), "attempts-exhausted");
        assert_eq!(code(&after(Outcome::Drained, full, 22)), "retry");
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let pause_after =
            |errors| match after(Outcome::Unsupported, Counters { returned: errors, ..Counters::default() }, 2) {
                NextStep::Retry { not_before_ms } => not_before_ms - 1_000_000,
                NextStep::Fail { .. } => panic!("no failure was due"),
            };
        assert!((500..=1000).contains(&pause_after(1)));
        assert!((2000..=4000).contains(&pause_after(3)));
        assert!((30_000..=60_000).contains(&pause_after(9)));
    }
}
