//! Why a run is to end early, told to it once.

use std::sync::{Arc, OnceLock};

use forecastle_protos::v1::Outcome;
use tokio_util::sync::CancellationToken;

/// Why a run is to end early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// The ledger does not want it any more, and says why.
    Cancelled(String),
    /// The worker is leaving. The ledger orders another attempt, uncounted.
    Drained,
    /// Memory ran short, and batch work makes way. As if drained.
    MemoryShort,
    /// It overran what it had borrowed from a priority that waits for it. As if drained.
    Preempted,
}

impl StopReason {
    /// How a run ends that heeded it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Cancelled(_) => Outcome::Cancelled,
            Self::Drained => Outcome::Drained,
            Self::MemoryShort | Self::Preempted => Outcome::Preempted,
        }
    }

    /// Whether the same work is to be done again, so that it is worth a moment to hear how far it came.
    pub const fn continues(&self) -> bool {
        matches!(self, Self::Drained | Self::Preempted)
    }

    /// For people.
    pub fn explanation(&self) -> String {
        match self {
            Self::Cancelled(reason) => format!("the ledger cancelled this run: {reason}"),
            Self::Drained => "the worker was drained before the run had ended".to_owned(),
            Self::MemoryShort => "memory ran short on the worker, and batch work makes way".to_owned(),
            Self::Preempted => {
                "the run outlived its prediction, on capacity guaranteed to a priority that waits for it".to_owned()
            }
        }
    }
}

/// Tells one run to stop. Cheap to clone; clones tell the same run. The first reason counts.
#[derive(Debug, Clone, Default)]
pub struct StopSignal {
    token: CancellationToken,
    reason: Arc<OnceLock<StopReason>>,
}

impl StopSignal {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to stop.
    pub fn stop(&self, reason: StopReason) {
        // The reason is there before the token says so.
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Why, if somebody has asked.
    pub fn reason(&self) -> Option<&StopReason> {
        self.reason.get()
    }

    /// Cancelled once somebody has asked.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts() {
        let signal = StopSignal::new();
        assert_eq!(signal.reason(), None);
        signal.clone().stop(StopReason::Preempted);
        signal.stop(StopReason::Drained);
        assert!(signal.token().is_cancelled());
        assert_eq!(signal.reason().map(StopReason::outcome), Some(Outcome::Preempted));
    }
}
