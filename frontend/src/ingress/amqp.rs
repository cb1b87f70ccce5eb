//! Requests over AMQP.
//!
//! The broker's confirm to the producer means durably queued. Here a message is checked and admitted (durable: the
//! ledger's commit), the `accepted` reply follows, then the acknowledgement. A crash between them means that the
//! message comes again and finds its key in the ledger: the same request, a second reply. A bad request is answered
//! with a typed error and kept, with the reason, in `forecastle.requests.rejected`.

use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::{Address, Broker, ConsumeOptions, ConsumerEvent, Delivery, Message, PublishOutcome, Publisher};
use forecastle_protos::headers::{HeaderValue, name};
use forecastle_protos::ids::RequestId;
use forecastle_protos::{JSON, PROTOBUF, names, trace, v1};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::json;
use crate::crash_points;
use crate::intake::{Intake, Rejection, Submission, detail};
use crate::ledger::ReplyAddress;
use crate::metric_definitions::REQUESTS;
use crate::replies;

/// Requests in hand at a time: they share the ledger's commits.
const WINDOW: u16 = 128;

/// The pause before what could not be done is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest reason beside a refused message, in characters.
const LONGEST_REASON: usize = 1000;

/// The tenant of messages that name none.
const DEFAULT_TENANT: &str = "default";

/// The largest body of a message, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit(pub usize);

/// The service.
pub struct AmqpIngress {
    /// Checks and admits.
    pub intake: Arc<Intake>,
    /// Where replies and refused messages go.
    pub publisher: Arc<dyn Publisher>,
    /// Larger bodies are refused.
    pub body_limit: BodyLimit,
    /// Requests whose final reply is owed again, for [`replies::Replies`].
    pub owed: mpsc::Sender<RequestId>,
}

impl AmqpIngress {
    /// Takes requests until told to stop; those in hand are finished.
    pub async fn run(self, broker: Arc<dyn Broker>, stop: CancellationToken) -> anyhow::Result<()> {
        let options = ConsumeOptions { window: WINDOW, exclusive: false, tag: "forecastle-frontend".to_owned() };
        let mut consumer = broker.consumer(names::REQUESTS, options).await?;
        let mut in_hand = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(()) = in_hand.next() => {}
                event = consumer.next() => match event {
                    Some(ConsumerEvent::Delivery(delivery)) => in_hand.push(self.take(*delivery, &stop)),
                    Some(ConsumerEvent::Interrupted) => {}
                    None => break,
                },
            }
        }
        consumer.close().await;
        while in_hand.next().await.is_some() {}
        Ok(())
    }

    async fn take(&self, delivery: Delivery, stop: &CancellationToken) {
        if crate::mutants::ack_before_commit() {
            let _gone = delivery.ack().await;
            // Settling hands the acknowledgement to the connection; the fault is only made once it has left.
            tokio::time::sleep(PAUSE).await;
            crash_points::INTAKE_BEFORE_COMMIT.hit();
            return;
        }
        loop {
            let message = &delivery.message;
            let reply = reply_address(message);
            let answer = match self.read(message) {
                Ok(body) => {
                    let tenant = if body.tenant.is_empty() { DEFAULT_TENANT.to_owned() } else { body.tenant.clone() };
                    crash_points::INTAKE_BEFORE_COMMIT.hit();
                    self.intake.submit(Submission { tenant, body, reply: reply.clone() }).await
                }
                Err(error) => Err(Rejection::Invalid(error)),
            };
            crash_points::INTAKE_AFTER_COMMIT.hit();
            let answered = match answer {
                Ok(taken) => {
                    let label = if taken.accepted.created { "created" } else { "known" };
                    metrics::counter!(REQUESTS, "ingress" => "amqp", "answer" => label).increment(1);
                    let told = self.reply(reply.as_ref(), v1::reply::Kind::Accepted(taken.accepted), "accepted").await;
                    // After the acceptance, so that they come in order. An error means that replies have stopped: the
                    // next life sends what is owed.
                    if told && taken.reply_owed && self.owed.send(taken.request).await.is_err() {
                        tracing::debug!(request = %taken.request, "a final reply waits for the next life");
                    }
                    told
                }
                Err(error @ Rejection::Unavailable(_)) => {
                    metrics::counter!(REQUESTS, "ingress" => "amqp", "answer" => "unavailable").increment(1);
                    tracing::error!(error = %error.detail().message, "a request waits for the ledger");
                    false
                }
                Err(error) => {
                    metrics::counter!(REQUESTS, "ingress" => "amqp", "answer" => "rejected").increment(1);
                    self.refuse(message, reply.as_ref(), error.detail()).await
                }
            };
            if answered {
                crash_points::INTAKE_BEFORE_ACK.hit();
                delivery.ack().await;
                return;
            }
            if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                // Unsettled: it is delivered again.
                return;
            }
        }
    }

    fn read(&self, message: &Message) -> Result<v1::SubmitRequest, v1::ErrorDetail> {
        if message.body.len() > self.body_limit.0 {
            let text = format!("the body has {} bytes, the limit is {}", message.body.len(), self.body_limit.0);
            return Err(detail("body-too-large", "", text));
        }
        let mut body = match message.content_type.as_deref() {
            Some(JSON) => json::parse(&message.body)?,
            Some(PROTOBUF | "application/protobuf" | "application/vnd.google.protobuf") | None => {
                v1::SubmitRequest::decode(&*message.body).map_err(|error| {
                    detail("malformed-body", "", format!("the body is not a SubmitRequest: {error}"))
                })?
            }
            Some(other) => {
                let text = format!("content type {other} is neither {JSON} nor {PROTOBUF}");
                return Err(detail("unsupported-content-type", "", text));
            }
        };
        if let Some(HeaderValue::Text(text)) = message.headers.get(name::TRACEPARENT)
            && let Some(text) = trace::traceparent(text)
        {
            text.clone_into(&mut body.traceparent);
        }
        if body.idempotency_key.is_empty() {
            body.idempotency_key = message.message_id.clone().unwrap_or_default();
        }
        if body.idempotency_key.is_empty() {
            return Err(detail(
                "missing-idempotency-key",
                "idempotencyKey",
                "a request over AMQP needs an idempotency key or a message-id, since the broker may deliver it twice",
            ));
        }
        Ok(body)
    }

    /// Replies if somebody wants it. True once the broker has the reply, or nobody can receive it.
    async fn reply(&self, to: Option<&ReplyAddress>, kind: v1::reply::Kind, name: &str) -> bool {
        let Some(to) = to else { return true };
        replies::send(&*self.publisher, to, kind, name).await != replies::Sent::Unknown
    }

    /// Keeps a bad request with the reason, then answers. True once both is done.
    async fn refuse(&self, message: &Message, to: Option<&ReplyAddress>, error: v1::ErrorDetail) -> bool {
        let mut kept = message.clone();
        kept.persistent = true;
        let reason = if error.field.is_empty() {
            format!("{}: {}", error.code, error.message)
        } else {
            format!("{} ({}): {}", error.code, error.field, error.message)
        };
        // It may repeat what came, and has to fit into a header.
        let reason: String = reason.chars().take(LONGEST_REASON).collect();
        tracing::warn!(reason, "a request was refused");
        kept.headers.insert(name::REJECTED_BECAUSE.to_owned(), HeaderValue::Text(reason));
        // Durable: the message and the reason, before it is acknowledged.
        match self.publisher.publish(Address::queue(names::REJECTED), kept).await {
            Ok(confirmation) => match confirmation.outcome().await {
                PublishOutcome::Confirmed => {}
                outcome => {
                    tracing::error!(?outcome, queue = names::REJECTED, "a refused request could not be kept");
                    return false;
                }
            },
            Err(error) => {
                tracing::warn!(%error, "a refused request was not kept");
                return false;
            }
        }
        self.reply(to, v1::reply::Kind::Rejected(error), "rejected").await
    }
}

fn reply_address(message: &Message) -> Option<ReplyAddress> {
    message.reply_to.as_ref().filter(|queue| !queue.is_empty()).map(|queue| ReplyAddress {
        queue: queue.clone(),
        correlation_id: message.correlation_id.clone(),
        json: message.content_type.as_deref() == Some(JSON),
    })
}
