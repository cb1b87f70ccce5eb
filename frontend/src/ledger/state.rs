//! A shard's life.
//!
//! ```text
//!              stage fires          released             success
//!   ┌─────────┐      ┌───────┐      ┌──────────┐      ┌───────────┐
//!   │ waiting ├─────▶│ ready ├─────▶│ inflight ├─────▶│ succeeded │
//!   └────┬────┘      └─┬───▲─┘      └─┬──┬───┬─┘      └───────────┘
//!        │             │   │  again   │  │   │ failure, for good
//!        │             │   ├──────────┘  │   └────────▶┌────────┐
//!        │             │   │ time is up  │ later       │ failed │
//!        │             │ ┌─┴───────┐     │             └────────┘
//!        │             │ │ backoff │◀────┘
//!        │  cancel     ▼ └────┬────┘   cancel          ┌───────────┐
//!        └────────────────────┴───────────────────────▶│ cancelled │
//!                                                      └───────────┘
//! ```
//!
//! A shard that is ready fails at once if nobody could ever run it. When a dead shard is replayed its request is
//! reopened: what failed or was cancelled waits again, and becomes ready where its stage had fired.

/// Where a shard is in its life. The discriminants are stored: a chunk's states are one byte a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ShardState {
    /// Its stage has not fired.
    Waiting = 0,
    /// May be released.
    Ready = 1,
    /// An attempt was ordered and has not ended.
    InFlight = 2,
    /// The last attempt failed; the next may be released after a while.
    Backoff = 3,
    /// A run's success was committed.
    Succeeded = 4,
    /// It failed for good.
    Failed = 5,
    /// Its request was cancelled, or failed through another shard.
    Cancelled = 6,
}

/// What happens to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardEvent {
    /// All its stage depends on has succeeded.
    Fire,
    /// An attempt is ordered.
    Release,
    /// A run succeeded.
    Succeed,
    /// The attempt ended without success; another may follow at once.
    TryAgain,
    /// The attempt ended without success; another may follow later.
    TryLater,
    /// The time to wait is over.
    Resume,
    /// The attempt ended without success, and no other follows.
    Fail,
    /// Nobody wants it any more.
    Cancel,
    /// Its request failed and runs again. (Not a way on for a request that somebody cancelled.)
    Reopen,
}

/// The event does not happen to a shard in that state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a shard that is {state} cannot {event:?}")]
pub struct Refused {
    /// The state it is in, and stays in.
    pub state: ShardState,
    /// The event.
    pub event: ShardEvent,
}

impl ShardState {
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::Waiting, Self::Ready, Self::InFlight, Self::Backoff, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The state stored as `byte`.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

    /// True once nothing can happen to it any more, unless its request is reopened.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The name shown to people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::InFlight => "in-flight",
            Self::Backoff => "backoff",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The transition function: the only place that decides what may follow what.
    pub const fn on(self, event: ShardEvent) -> Result<Self, Refused> {
        use ShardEvent as E;
        Ok(match (self, event) {
            (Self::Waiting, E::Fire) | (Self::Backoff, E::Resume) | (Self::InFlight, E::TryAgain) => Self::Ready,
            (Self::Ready, E::Release) => Self::InFlight,
            // A success counts whatever attempt it belongs to, also while the next one waits.
            (Self::InFlight | Self::Ready | Self::Backoff, E::Succeed) => Self::Succeeded,
            (Self::InFlight, E::TryLater) => Self::Backoff,
            // One that is ready fails when nobody could ever run it.
            (Self::InFlight | Self::Ready, E::Fail) => Self::Failed,
            (Self::Waiting | Self::Ready | Self::InFlight | Self::Backoff, E::Cancel) => Self::Cancelled,
            // Its stage fires again if it had fired.
            (Self::Failed | Self::Cancelled, E::Reopen) => Self::Waiting,
            (state, event) => return Err(Refused { state, event }),
        })
    }
}

impl std::fmt::Display for ShardState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [ShardEvent; 9] = [
        ShardEvent::Fire,
        ShardEvent::Release,
        ShardEvent::Succeed,
        ShardEvent::TryAgain,
        ShardEvent::TryLater,
        ShardEvent::Resume,
        ShardEvent::Fail,
        ShardEvent::Cancel,
        ShardEvent::Reopen,
    ];

    #[test]
    fn nothing_happens_to_a_shard_that_has_ended_but_that_its_request_is_reopened() {
        for state in ShardState::ALL.into_iter().filter(|s| s.is_final()) {
            for event in EVENTS.into_iter().filter(|event| *event != ShardEvent::Reopen) {
                assert_eq!(state.on(event), Err(Refused { state, event }));
            }
        }
        assert!(ShardState::Succeeded.on(ShardEvent::Reopen).is_err());
        assert_eq!(ShardState::Failed.on(ShardEvent::Reopen), Ok(ShardState::Waiting));
    }

    #[test]
    fn every_state_is_reached_from_waiting_and_can_end() {
        let mut reached = vec![ShardState::Waiting];
        let mut next = 0;
        while next < reached.len() {
            for event in EVENTS {
                if let Ok(state) = reached[next].on(event)
                    && !reached.contains(&state)
                {
                    reached.push(state);
                }
            }
            next += 1;
        }
        assert_eq!(reached.len(), ShardState::ALL.len());
        for state in reached.into_iter().filter(|s| !s.is_final()) {
            assert!(state.on(ShardEvent::Cancel).is_ok_and(ShardState::is_final));
        }
    }

    #[test]
    fn bytes_are_stable() {
        for (byte, state) in (0u8..).zip(ShardState::ALL) {
            assert_eq!(state as u8, byte);
            assert_eq!(ShardState::from_byte(byte), Some(state));
        }
        assert_eq!(ShardState::from_byte(7), None);
    }
}
