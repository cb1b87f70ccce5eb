//! Why a run ends early.

use std::sync::Arc;
use std::time::Duration;

use forecastle_protos::v1::Outcome;
use tokio::sync::SetOnce;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::runner::scratch_meter::Overuse;
use crate::stop::{StopReason, StopSignal};

/// Why a run ends early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopCause {
    /// Somebody asked for it.
    Asked(StopReason),
    /// It took longer than this.
    TimedOut(Duration),
    /// One of its processes was killed for memory.
    OutOfMemory,
    /// It used more scratch disk than it had reserved.
    OutOfScratch(Overuse),
}

impl StopCause {
    /// How a run ends that was stopped for this.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Asked(reason) => reason.outcome(),
            Self::TimedOut(_) => Outcome::Timeout,
            Self::OutOfMemory => Outcome::OutOfMemory,
            Self::OutOfScratch(_) => Outcome::TaskError,
        }
    }

    /// Whether the same work is to be done again and may leave a checkpoint.
    pub const fn continues(&self) -> bool {
        matches!(self, Self::Asked(reason) if reason.continues())
    }

    /// For people.
    pub fn explanation(&self) -> String {
        match self {
            Self::Asked(reason) => reason.explanation(),
            Self::TimedOut(limit) => format!("it was stopped after {limit:.1?}, its limit"),
            Self::OutOfMemory => "it was killed for memory".to_owned(),
            Self::OutOfScratch(overuse) => overuse.to_string(),
        }
    }
}

/// What can end a run early.
#[derive(Debug, Clone)]
pub struct StopWatch {
    stop: StopSignal,
    limit: Option<(Duration, Instant)>,
    out_of_memory: CancellationToken,
    scratch: Arc<SetOnce<Overuse>>,
}

impl StopWatch {
    /// The time runs from now on.
    pub fn start(
        stop: StopSignal,
        limit: Option<Duration>,
        out_of_memory: CancellationToken,
        scratch: Arc<SetOnce<Overuse>>,
    ) -> Self {
        let end = |limit| Instant::now().checked_add(limit).map(|end| (limit, end));
        Self { stop, limit: limit.and_then(end), out_of_memory, scratch }
    }

    /// Waits until there is a cause.
    pub async fn cause(&self) -> StopCause {
        let over = async {
            match self.limit {
                Some((limit, end)) => {
                    tokio::time::sleep_until(end).await;
                    limit
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.out_of_memory.cancelled() => StopCause::OutOfMemory,
            () = self.stop.token().cancelled() => self.asked(),
            overuse = self.scratch.wait() => StopCause::OutOfScratch(*overuse),
            limit = over => StopCause::TimedOut(limit),
        }
    }

    /// The cause, if there is one already.
    pub fn now(&self) -> Option<StopCause> {
        if self.out_of_memory.is_cancelled() {
            Some(StopCause::OutOfMemory)
        } else if self.stop.token().is_cancelled() {
            Some(self.asked())
        } else if let Some(overuse) = self.scratch.get() {
            Some(StopCause::OutOfScratch(*overuse))
        } else {
            self.limit.filter(|(_, end)| Instant::now() >= *end).map(|(limit, _)| StopCause::TimedOut(limit))
        }
    }

    fn asked(&self) -> StopCause {
        // The reason is there before the token says so.
        StopCause::Asked(self.stop.reason().cloned().unwrap_or(StopReason::Drained))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_resources::Bytes;

    #[tokio::test(start_paused = true)]
    async fn the_first_cause_is_told_and_memory_comes_before_all() {
        let (stop, memory, scratch) = (StopSignal::new(), CancellationToken::new(), Arc::new(SetOnce::new()));
        let limit = Some(Duration::from_secs(5));
        let watch = StopWatch::start(stop.clone(), limit, memory.clone(), Arc::clone(&scratch));
        assert_eq!(watch.now(), None);
        assert_eq!(watch.cause().await, StopCause::TimedOut(Duration::from_secs(5)));
        let overuse = Overuse { used: Bytes::gib(2), reserved: Bytes::gib(1) };
        scratch.set(overuse).unwrap();
        assert_eq!(watch.cause().await, StopCause::OutOfScratch(overuse));
        assert_eq!(watch.now().map(|cause| cause.outcome()), Some(Outcome::TaskError));
        stop.stop(StopReason::Preempted);
        assert_eq!(watch.cause().await, StopCause::Asked(StopReason::Preempted));
        memory.cancel();
        assert_eq!(watch.cause().await, StopCause::OutOfMemory);
        assert_eq!(watch.now().map(|cause| cause.outcome()), Some(Outcome::OutOfMemory));
    }
}
