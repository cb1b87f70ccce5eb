//! What the frontend tells the fleet.

use std::sync::Arc;

use forecastle_broker::{Address, Message, Publisher};
use forecastle_protos::ids::RunId;
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

    async fn send(&self, kind: Kind) {
        let message = Message {
            body: v1::ControlMessage { kind: Some(kind) }.encode_to_vec().into(),
            content_type: Some(PROTOBUF.to_owned()),
            kind: Some("control".to_owned()),
            ..Message::default()
        };
        if let Err(error) = self.publisher.publish(Address::exchange(names::CONTROL, ""), message).await {
            tracing::warn!(%error, "a control message was not sent");
        }
    }
}
