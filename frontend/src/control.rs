//! What the frontend tells the fleet.

use std::sync::Arc;

use forecastle_broker::{Address, Confirmation, Message, Publisher};
use forecastle_protos::ids::{RunId, ShardId};
use forecastle_protos::v1::{self, control_message::Kind};
use forecastle_protos::{PROTOBUF, names};
use prost::Message as _;

/// Publishes control messages. Cheap to clone.
///
/// They are advice, not transfers: one that is lost is said again by the sweeper until the ledger shows its effect.
#[derive(Clone)]
pub struct Control {
    publisher: Arc<dyn Publisher>,
}

/// The most runs in one message.
const RUNS_A_MESSAGE: usize = 1000;

impl Control {
    /// A control over `publisher`.
    pub fn new(publisher: Arc<dyn Publisher>) -> Self {
        Self { publisher }
    }

    /// Tells every worker to stop these runs.
    pub async fn stop_runs(&self, runs: &[RunId], reason: &str) {
        for runs in runs.chunks(RUNS_A_MESSAGE) {
            let run_ids = runs.iter().map(ToString::to_string).collect();
            self.send(Kind::Cancel(v1::CancelRuns { run_ids, reason: reason.to_owned() })).await;
        }
    }

    /// Asks every worker for a load report.
    pub async fn report_now(&self) {
        self.send(Kind::ReportNow(v1::ReportNow {})).await;
    }

    /// Asks workers to give priorities other shares.
    pub async fn set_shares(&self, shares: v1::SetShares) {
        self.send(Kind::SetShares(shares)).await;
    }

    /// Tells every worker which runs won: what others left of the same shards is of no use. True once the broker has
    /// handed it to whoever listens.
    pub async fn discard_outputs(&self, won: &[(ShardId, RunId)]) -> bool {
        for won in won.chunks(RUNS_A_MESSAGE) {
            let shards =
                won.iter().map(|(shard, run)| v1::WonBy { shard_id: shard.to_string(), run_id: run.to_string() });
            if !self.discard(v1::DiscardOutputs { shards: shards.collect(), runs: Vec::new() }).await {
                return false;
            }
        }
        true
    }

    /// Tells every worker of runs that are of no use: what they left goes. True once the broker has handed it to whoever
    /// listens.
    pub async fn discard_runs(&self, runs: &[(ShardId, RunId)]) -> bool {
        for runs in runs.chunks(RUNS_A_MESSAGE) {
            let runs =
                runs.iter().map(|(shard, run)| v1::RunOf { shard_id: shard.to_string(), run_id: run.to_string() });
            if !self.discard(v1::DiscardOutputs { shards: Vec::new(), runs: runs.collect() }).await {
                return false;
            }
        }
        true
    }

    async fn discard(&self, discard: v1::DiscardOutputs) -> bool {
        match self.send(Kind::DiscardOutputs(discard)).await {
            Some(confirmation) => confirmation.outcome().await.is_confirmed(),
            None => false,
        }
    }

    /// Tells a fleet what it is expected to start soon.
    pub async fn expect(&self, demand: v1::Demand) {
        self.send(Kind::Demand(demand)).await;
    }

    async fn send(&self, kind: Kind) -> Option<Confirmation> {
        let message = Message {
            body: v1::ControlMessage { kind: Some(kind) }.encode_to_vec().into(),
            content_type: Some(PROTOBUF.to_owned()),
            kind: Some("control".to_owned()),
            ..Message::default()
        };
        match self.publisher.publish(Address::exchange(names::CONTROL, ""), message).await {
            Ok(confirmation) => Some(confirmation),
            Err(error) => {
                tracing::warn!(%error, "a control message was not sent");
                None
            }
        }
    }
}
