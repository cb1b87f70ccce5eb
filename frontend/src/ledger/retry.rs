//! What follows a failure. The ledger asks inside its transaction, so that the outcome and the next attempt are
//! written together.

use forecastle_protos::v1::Outcome;
use forecastle_resources::Reservation;

/// How often the attempts of a shard have ended in which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Task errors, retryable.
    pub errors: u32,
    /// Kills for memory.
    pub out_of_memory: u32,
    /// Timeouts.
    pub timeouts: u32,
    /// Workers lost.
    pub lost: u32,
    /// Everything that is not counted against any budget: preempted, drained, cancelled by an operator.
    pub uncounted: u32,
    /// Given back by the broker, or by a worker that could not run it.
    pub returned: u32,
}

impl Counters {
    /// The same with one more ending.
    #[must_use]
    pub fn with(mut self, outcome: Outcome) -> Self {
        let counter = match outcome {
            Outcome::OutOfMemory => &mut self.out_of_memory,
            Outcome::Timeout => &mut self.timeouts,
            Outcome::WorkerLost => &mut self.lost,
            Outcome::TaskError | Outcome::PermanentError => &mut self.errors,
            Outcome::Preempted | Outcome::Drained | Outcome::Cancelled => &mut self.uncounted,
            Outcome::Unsupported | Outcome::Unspecified | Outcome::Succeeded => &mut self.returned,
        };
        *counter = counter.saturating_add(1);
        self
    }

    /// All that count against the budget for all classes together.
    pub fn counted(&self) -> u32 {
        [self.errors, self.out_of_memory, self.timeouts, self.lost, self.returned]
            .into_iter()
            .fold(0, u32::saturating_add)
    }
}

/// An attempt that ended without success.
#[derive(Debug)]
pub struct Failure<'a> {
    /// The request type.
    pub request_type: &'a str,
    /// The unit.
    pub unit: &'a str,
    /// The attempt that ended, from 1.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// What the worker said of it.
    pub error: &'a str,
    /// How the attempts so far ended, this one included.
    pub counters: Counters,
    /// What this attempt had reserved.
    pub reservation: &'a Reservation,
    /// Now, in milliseconds since 1970.
    pub now_ms: u64,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextStep {
    /// Another attempt, not before this time (milliseconds since 1970).
    Retry {
        /// Not before.
        not_before_ms: u64,
    },
    /// The shard has failed, and with it its request.
    Fail {
        /// A stable name in kebab-case.
        code: &'static str,
        /// For people.
        message: String,
    },
}

/// Decides what follows a failure. Called on the ledger's writer thread: it must be quick and must not block.
pub trait RetryPolicy: Send + Sync {
    /// What follows `failure`.
    fn after(&self, failure: &Failure<'_>) -> NextStep;
}
