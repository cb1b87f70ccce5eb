//! Identifiers, each a type of its own, so that they cannot be mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct ParseIdError {
    text: String,
    expected: &'static str,
}

/// Declares an identifier over a UUID of version 7, whose order is that of time.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Mints a new one.
            #[expect(clippy::new_without_default, reason = "minting is an act, not a default value")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                // Only the hyphenated form: one id has one text.
                match (text.len(), Uuid::try_parse(text)) {
                    (36, Ok(id)) => Ok(Self(id)),
                    _ => Err(ParseIdError { text: truncated(text), expected: $expected }),
                }
            }
        }
    };
}

fn truncated(text: &str) -> String {
    text.chars().take(64).collect()
}

uuid_id! {
    /// A request. Minted by the frontend that admits it.
    RequestId, "a request id (a UUID)"
}

uuid_id! {
    /// One execution of an attempt on one worker. Minted by the worker.
    RunId, "a run id (a UUID)"
}

uuid_id! {
    /// One life of one worker process.
    WorkerId, "a worker id (a UUID)"
}

uuid_id! {
    /// A ledger. Minted when the ledger is made; part of the completion queue's name.
    LedgerId, "a ledger id (a UUID)"
}

/// A shard: its request, the number of its stage and its number within the stage. Prints as `<request>.<stage>.<index>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId {
    /// The request.
    pub request: RequestId,
    /// The stage's number in the plan, from 0.
    pub stage: u32,
    /// The shard's number in the stage, from 0.
    pub index: u32,
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.request, self.stage, self.index)
    }
}

impl FromStr for ShardId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseIdError { text: truncated(text), expected: "a shard id (<request>.<stage>.<index>)" };
        let number = |part: Option<&str>| {
            part.filter(|p| p.bytes().all(|b| b.is_ascii_digit())).and_then(|p| p.parse().ok()).ok_or_else(error)
        };
        let mut parts = text.split('.');
        let request = parts.next().unwrap_or_default().parse().map_err(|_| error())?;
        let (stage, index) = (number(parts.next())?, number(parts.next())?);
        if parts.next().is_some() {
            return Err(error());
        }
        Ok(Self { request, stage, index })
    }
}

impl Serialize for ShardId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ShardId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shard_ids_round_trip(bits in any::<u128>(), stage in any::<u32>(), index in any::<u32>()) {
            let id = ShardId { request: RequestId(Uuid::from_u128(bits)), stage, index };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = text.parse::<ShardId>();
            let _ = text.parse::<RunId>();
        }
    }

    #[test]
    fn refuses_what_only_looks_like_an_id() {
        let request = RequestId::new();
        for text in [format!("{request}.1"), format!("{request}.1.2.3"), format!("{request}.+1.2"), String::new()] {
            assert!(text.parse::<ShardId>().is_err(), "{text}");
        }
    }
}
