//! Final replies to producers over AMQP.
//!
//! A reply is owed in the ledger from the commit that ends the request until the broker has it, or says that nobody
//! can receive it: then it is undeliverable and not tried for ever. A crash between the two means a second reply with
//! the same correlation id. A producer that asks again is owed it again, where it is now.

use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::{Address, Message, PublishOutcome, Publisher};
use forecastle_protos::ids::RequestId;
use forecastle_protos::v1::RequestState;
use forecastle_protos::{JSON, PROTOBUF, v1};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::crash_points;
use crate::ledger::{Error, Ledger, ReplyAddress};
use crate::metric_definitions::REQUESTS_ENDED;

/// The pause before what could not be said is said again.
const PAUSE: Duration = Duration::from_millis(500);

/// The service.
pub struct Replies {
    /// The truth.
    pub ledger: Arc<dyn Ledger>,
    /// Where replies go out.
    pub publisher: Arc<dyn Publisher>,
    /// Requests that ended.
    pub finished: mpsc::UnboundedReceiver<RequestId>,
    /// Requests that had ended when their producer asked again.
    pub owed_again: mpsc::Receiver<RequestId>,
}

/// What came of a reply.
enum Reply {
    /// Nothing is owed any more; the request ended like this.
    Settled(RequestState),
    /// There is no such request.
    Unknown,
    /// The broker does not have it.
    TryAgain,
}

impl Replies {
    /// Replies until told to stop; begins with what an earlier life owes.
    pub async fn run(mut self, owed: Vec<RequestId>, stop: CancellationToken) {
        for request in owed {
            self.ended(request, &stop).await;
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(request) = self.finished.recv() => self.ended(request, &stop).await,
                // Counted when it ended.
                Some(request) = self.owed_again.recv() => drop(self.settle(request, &stop).await),
                else => return,
            }
        }
    }

    async fn ended(&self, request: RequestId, stop: &CancellationToken) {
        if let Some(state) = self.settle(request, stop).await {
            metrics::counter!(REQUESTS_ENDED, "state" => state.as_str_name()).increment(1);
        }
    }

    /// How the request ended, once nothing is owed any more.
    async fn settle(&self, request: RequestId, stop: &CancellationToken) -> Option<RequestState> {
        loop {
            match self.reply(request).await {
                Ok(Reply::Settled(state)) => return Some(state),
                Ok(Reply::Unknown) => return None,
                Ok(Reply::TryAgain) => {}
                Err(error) => tracing::error!(%request, %error, "a reply waits for the ledger"),
            }
            stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await?;
        }
    }

    async fn reply(&self, request: RequestId) -> Result<Reply, Error> {
        let Some(status) = self.ledger.status(request).await? else { return Ok(Reply::Unknown) };
        let state = status.state();
        let Some(to) = self.ledger.owed_reply(request).await? else { return Ok(Reply::Settled(state)) };
        let kind = v1::reply::Kind::Finished(v1::Finished { status: Some(status) });
        let sent = self.publisher.publish(Address::queue(&to.queue), message(&to, kind, "finished")).await;
        let outcome = match sent {
            Ok(confirmation) => confirmation.outcome().await,
            Err(error) => PublishOutcome::Unknown { reason: error.to_string() },
        };
        crash_points::REPLY_AFTER_CONFIRM.hit();
        let delivered = match outcome {
            PublishOutcome::Confirmed => true,
            PublishOutcome::Returned { reason } => {
                tracing::warn!(%request, queue = to.queue, reason, "nobody can receive the final reply");
                false
            }
            PublishOutcome::Nacked | PublishOutcome::Unknown { .. } => return Ok(Reply::TryAgain),
        };
        // Durable: the reply is no longer owed to this address.
        self.ledger.settle_reply(request, to, delivered).await?;
        Ok(Reply::Settled(state))
    }
}

/// A reply to whoever asked, in the form that was asked in.
pub fn message(to: &ReplyAddress, kind: v1::reply::Kind, name: &str) -> Message {
    let reply = v1::Reply { kind: Some(kind) };
    let (body, content_type) = if to.json {
        (serde_json::to_vec(&reply).unwrap_or_default(), JSON)
    } else {
        (reply.encode_to_vec(), PROTOBUF)
    };
    Message {
        body: body.into(),
        content_type: Some(content_type.to_owned()),
        correlation_id: to.correlation_id.clone(),
        kind: Some(name.to_owned()),
        persistent: true,
        ..Message::default()
    }
}
