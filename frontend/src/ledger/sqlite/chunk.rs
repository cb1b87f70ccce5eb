//! Up to [`SHARDS`] shards of a stage in one row, so that a hundred thousand shards cost little.

use forecastle_protos::v1;
use prost::Message;

use crate::ledger::{Error, ShardState};

/// The most shards in a chunk.
pub(super) const SHARDS: u32 = 1024;

/// What the shards of a chunk are. Never changes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ChunkBody {
    /// The shards, in order.
    #[prost(message, repeated, tag = "1")]
    pub(super) shards: Vec<ShardBody>,
}

/// What one shard is.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ShardBody {
    /// The unit.
    #[prost(string, tag = "1")]
    pub(super) unit: String,
    /// What it reads.
    #[prost(message, repeated, tag = "2")]
    pub(super) items: Vec<v1::Item>,
}

/// What was ordered with an attempt.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AttemptBody {
    /// What is reserved.
    #[prost(message, optional, tag = "1")]
    pub(super) reservation: Option<v1::Reservation>,
    /// Why.
    #[prost(message, optional, tag = "2")]
    pub(super) forecast: Option<v1::Forecast>,
    /// The size class.
    #[prost(string, tag = "3")]
    pub(super) class: String,
    /// The queue.
    #[prost(string, tag = "4")]
    pub(super) queue: String,
    /// When it was ordered, milliseconds since 1970.
    #[prost(uint64, tag = "5")]
    pub(super) released_ms: u64,
    /// Where an earlier attempt came to: what this attempt is given.
    #[prost(message, optional, tag = "40")]
    pub(super) checkpoint: Option<v1::Checkpoint>,
    /// Wall-clock limit of a run in milliseconds; 0 is none, or not known.
    #[prost(uint64, tag = "6")]
    pub(super) timeout_ms: u64,
}

/// Decodes a stored message; what cannot be decoded is a corrupt ledger.
pub(super) fn decode<M: Message + Default>(bytes: &[u8], what: &'static str) -> Result<M, Error> {
    M::decode(bytes).map_err(|error| Error::Corrupt(format!("{what}: {error}")))
}

/// The chunk of a shard and its place there.
pub(super) fn locate(shard: u32) -> (u32, usize) {
    (shard / SHARDS, (shard % SHARDS) as usize)
}

/// The state stored as `byte`; what is none is a corrupt ledger.
pub(super) fn state(byte: u8) -> Result<ShardState, Error> {
    ShardState::from_byte(byte).ok_or_else(|| Error::Corrupt(format!("a shard's state {byte}")))
}

/// The runs of equal elements that satisfy `wanted`, as (first, count).
pub(super) fn ranges(states: &[u8], wanted: ShardState) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for (index, _) in (0u32..).zip(states).filter(|(_, byte)| **byte == wanted as u8) {
        match ranges.last_mut() {
            Some((first, count)) if *first + *count == index => *count += 1,
            _ => ranges.push((index, 1)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_maximal() {
        assert_eq!(ranges(&[1, 1, 0, 1, 2, 1, 1, 1], ShardState::Ready), vec![(0, 2), (3, 1), (5, 3)]);
        assert_eq!(ranges(&[], ShardState::Ready), vec![]);
    }
}
