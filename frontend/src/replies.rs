//! Final replies to producers over AMQP.
//!
//! A reply is owed in the ledger from the commit that ends the request until the broker has it, or says that nobody
//! can receive it, or its queue refuses it time and again: then it is undeliverable and not tried for ever. A crash between the two means a second reply with
//! the same correlation id. A producer that asks again is owed it again, where it is now.

use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::{Address, Message, PublishOutcome, Publisher};
use forecastle_protos::ids::RequestId;
use forecastle_protos::v1::RequestState;
use forecastle_protos::{JSON, PROTOBUF, v1};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::crash_points;
use crate::ledger::{Error, Ledger, ReplyAddress};
use crate::metric_definitions::REQUESTS_ENDED;

/// The pause before what could not be said is said again.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a queue may refuse a reply, since it is full, before that is undeliverable.
const REFUSALS: u32 = 10;

/// Final replies under way at a time, so that one queue that refuses holds up no other.
const AT_A_TIME: usize = 64;

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
    pub async fn run(self, owed: Vec<RequestId>, stop: CancellationToken) {
        let Self { ledger, publisher, mut finished, mut owed_again } = self;
        let replier = Replier { ledger, publisher };
        let mut owed = owed.into_iter();
        let mut under_way = FuturesUnordered::new();
        loop {
            let room = under_way.len() < AT_A_TIME;
            if room && let Some(request) = owed.next() {
                under_way.push(replier.settle(request, true, &stop));
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = under_way.next() => {}
                Some(request) = finished.recv(), if room => under_way.push(replier.settle(request, true, &stop)),
                // Counted when it ended.
                Some(request) = owed_again.recv(), if room => under_way.push(replier.settle(request, false, &stop)),
                else => return,
            }
        }
    }
}

/// What it takes to reply.
struct Replier {
    ledger: Arc<dyn Ledger>,
    publisher: Arc<dyn Publisher>,
}

impl Replier {
    /// Replies until nothing is owed any more.
    async fn settle(&self, request: RequestId, count: bool, stop: &CancellationToken) {
        loop {
            match self.reply(request).await {
                Ok(Reply::Settled(state)) => {
                    if count {
                        metrics::counter!(REQUESTS_ENDED, "state" => state.as_str_name()).increment(1);
                    }
                    return;
                }
                Ok(Reply::Unknown) => return,
                Ok(Reply::TryAgain) => {}
                Err(error) => tracing::error!(%request, %error, "a reply waits for the ledger"),
            }
            if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
    }

    async fn reply(&self, request: RequestId) -> Result<Reply, Error> {
        let Some(status) = self.ledger.status(request).await? else { return Ok(Reply::Unknown) };
        let state = status.state();
        let Some(to) = self.ledger.owed_reply(request).await? else { return Ok(Reply::Settled(state)) };
        let kind = v1::reply::Kind::Finished(v1::Finished { status: Some(status) });
        let sent = send(&*self.publisher, &to, kind, "finished").await;
        crash_points::REPLY_AFTER_CONFIRM.hit();
        let delivered = match sent {
            Sent::Delivered => true,
            Sent::Undeliverable => false,
            Sent::Unknown => return Ok(Reply::TryAgain),
        };
        // Durable: the reply is no longer owed to this address.
        self.ledger.settle_reply(request, to, delivered).await?;
        Ok(Reply::Settled(state))
    }
}

/// What became of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Its queue has it.
    Delivered,
    /// Nobody can receive it.
    Undeliverable,
    /// The broker did not say.
    Unknown,
}

/// Sends a reply, a few times if its queue refuses it.
pub async fn send(publisher: &dyn Publisher, to: &ReplyAddress, kind: v1::reply::Kind, name: &str) -> Sent {
    let message = message(to, kind, name);
    for _ in 0..REFUSALS {
        let outcome = match publisher.publish(Address::queue(&to.queue), message.clone()).await {
            Ok(confirmation) => confirmation.outcome().await,
            Err(error) => PublishOutcome::Unknown { reason: error.to_string() },
        };
        match outcome {
            PublishOutcome::Confirmed => return Sent::Delivered,
            PublishOutcome::Returned { reason } => {
                tracing::warn!(queue = to.queue, name, reason, "nobody can receive a reply");
                return Sent::Undeliverable;
            }
            PublishOutcome::Unknown { reason } => {
                tracing::warn!(queue = to.queue, name, reason, "a reply was not sent");
                return Sent::Unknown;
            }
            PublishOutcome::Nacked => tokio::time::sleep(PAUSE).await,
        }
    }
    tracing::warn!(queue = to.queue, name, "the queue refuses a reply; it is given up");
    Sent::Undeliverable
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
