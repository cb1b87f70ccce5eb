//! Assignments: what a shard's message asks for, read and checked.

use std::time::Duration;

use forecastle_admission::Claim;
use forecastle_broker::Message;
use forecastle_protos::headers::{HeaderError, ShardHeaders};
use forecastle_protos::ids::{LedgerId, ShardId};
use forecastle_protos::v1;
use forecastle_resources::{Bytes, CpuMillis, ResourceVector};
use prost::Message as _;

/// The least that a lease holds, whatever the shard reserves: so that a capacity bounds the number of runs.
pub const LEAST_HELD: ResourceVector = ResourceVector::new(CpuMillis(1), Bytes::kib(64));

/// The probability with which the predicted end, which lending and backfill rely on, is late enough.
const END_PROBABILITY: f64 = 0.95;

/// One attempt of a shard, as its message describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// Whose it is and what it reserves.
    pub headers: ShardHeaders,
    /// What it does.
    pub shard: v1::Shard,
}

/// An attempt's identity among all ledgers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptKey {
    /// The ledger that ordered it.
    pub ledger: LedgerId,
    /// The shard.
    pub shard: ShardId,
    /// From 1.
    pub attempt: u32,
}

/// Why a message is no assignment. Nothing but the ledger can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A header is missing or makes no sense.
    #[error(transparent)]
    Headers(#[from] HeaderError),
    /// The body is no protobuf of a shard.
    #[error("the body is not a shard: {0}")]
    Body(String),
    /// Headers and body speak of different attempts.
    #[error("the headers are those of {headers} and the body is that of {body}")]
    Contradiction {
        /// Shard and attempt by the headers.
        headers: String,
        /// Shard and attempt by the body.
        body: String,
    },
}

impl Assignment {
    /// Reads a message.
    pub fn read(message: &Message) -> Result<Self, Unreadable> {
        let headers = ShardHeaders::decode(&message.headers)?;
        let shard = v1::Shard::decode(&*message.body).map_err(|error| Unreadable::Body(error.to_string()))?;
        let by_headers = format!("{}#{}", headers.shard, headers.attempt);
        let by_body = format!("{}#{}", shard.shard_id, shard.attempt);
        if by_headers != by_body {
            // The body's id is anything up to the size of a message.
            let body = by_body.chars().take(64).collect();
            return Err(Unreadable::Contradiction { headers: by_headers, body });
        }
        Ok(Self { headers, shard })
    }

    /// Which attempt this is.
    pub fn key(&self) -> AttemptKey {
        AttemptKey { ledger: self.headers.ledger, shard: self.headers.shard, attempt: self.headers.attempt }
    }

    /// What is asked of the pool.
    pub fn claim(&self) -> Claim {
        Claim {
            priority: self.headers.priority,
            vector: self.headers.reservation.vector.max(&LEAST_HELD),
            predicted_end_after: self.predicted_end_after(),
        }
    }

    /// How long a run may take: its own limit and what is left until the deadline, seen from `now_unix_ms`. `None` is
    /// without limit; zero says that the deadline has passed.
    pub fn time_limit(&self, now_unix_ms: u64) -> Option<Duration> {
        let own = (self.shard.timeout_ms > 0).then(|| Duration::from_millis(self.shard.timeout_ms));
        let left = self.headers.deadline_unix_ms.map(|at| Duration::from_millis(at.saturating_sub(now_unix_ms)));
        match (own, left) {
            (Some(own), Some(left)) => Some(own.min(left)),
            (own, left) => own.or(left),
        }
    }

    /// The duration that 95 % of such runs do not exceed, as forecast; at most the run's own limit.
    fn predicted_end_after(&self) -> Duration {
        let need = self.shard.forecast.iter().flat_map(|forecast| &forecast.need);
        let late_enough = need
            .filter(|quantile| quantile.probability >= END_PROBABILITY && quantile.duration_ms > 0.0)
            .min_by(|a, b| a.probability.total_cmp(&b.probability))
            .and_then(|quantile| Duration::try_from_secs_f64(quantile.duration_ms / 1000.0).ok());
        // Without such a quantile: what was declared is meant as an upper bound.
        let predicted = late_enough.unwrap_or(self.headers.reservation.duration);
        match self.shard.timeout_ms {
            0 => predicted,
            limit => predicted.min(Duration::from_millis(limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, assignment};
    use forecastle_protos::headers::{HeaderValue, name};

    #[test]
    fn what_the_frontend_writes_is_read() {
        let assignment = assignment();
        assert_eq!(Assignment::read(&sample::message(&assignment)), Ok(assignment));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let sound = sample::message(&assignment());
        let mut message = sound.clone();
        message.headers.insert(name::CPU_MILLIS.to_owned(), HeaderValue::Int(-1));
        assert!(Assignment::read(&message).unwrap_err().to_string().contains(name::CPU_MILLIS));
        let message = Message { body: vec![0xff; 9].into(), ..sound.clone() };
        assert!(matches!(Assignment::read(&message), Err(Unreadable::Body(_))));
        let mut message = sound;
        message.headers.insert(name::ATTEMPT.to_owned(), HeaderValue::Int(7));
        assert!(matches!(Assignment::read(&message), Err(Unreadable::Contradiction { .. })));
    }

    #[test]
    fn the_shorter_of_limit_and_deadline_bounds_a_run() {
        let mut assignment = assignment();
        assignment.shard.timeout_ms = 0;
        assignment.headers.deadline_unix_ms = None;
        assert_eq!(assignment.time_limit(1000), None);
        assignment.headers.deadline_unix_ms = Some(5000);
        assert_eq!(assignment.time_limit(1000), Some(Duration::from_secs(4)));
        assert_eq!(assignment.time_limit(6000), Some(Duration::ZERO));
        assignment.shard.timeout_ms = 3000;
        assert_eq!(assignment.time_limit(1000), Some(Duration::from_secs(3)));
    }

    #[test]
    fn the_predicted_end_is_the_quantile_that_lending_asks_for() {
        let mut assignment = assignment();
        assignment.shard.timeout_ms = 0;
        assignment.headers.reservation.duration = Duration::from_secs(7);
        let quantile = |probability, seconds: f64| v1::NeedQuantile {
            probability,
            duration_ms: seconds * 1000.0,
            ..Default::default()
        };
        assignment.shard.forecast = Some(v1::Forecast { need: vec![quantile(0.5, 1.0)], ..Default::default() });
        assert_eq!(assignment.claim().predicted_end_after, Duration::from_secs(7));
        let need = vec![quantile(0.5, 1.0), quantile(0.95, 4.0), quantile(0.99, 9.0)];
        assignment.shard.forecast = Some(v1::Forecast { need, ..Default::default() });
        assert_eq!(assignment.claim().predicted_end_after, Duration::from_secs(4));
        assignment.shard.timeout_ms = 2000;
        assert_eq!(assignment.claim().predicted_end_after, Duration::from_secs(2));
        let nonsense = vec![quantile(0.95, f64::NAN), quantile(0.96, f64::INFINITY)];
        assignment.shard.forecast = Some(v1::Forecast { need: nonsense, ..Default::default() });
        assert_eq!(assignment.claim().predicted_end_after, Duration::from_secs(2));
    }

    #[test]
    fn a_reservation_of_nothing_still_holds_something() {
        let mut assignment = assignment();
        assignment.headers.reservation.vector = ResourceVector::ZERO;
        assert_eq!(assignment.claim().vector, LEAST_HELD);
    }
}
