//! Returned: shards that could not be routed, read or delivered become transitions in the ledger.
//!
//! The headers say whose a message is; if they cannot be read, its body and its message id say the same. What cannot
//! be traced to an attempt is kept as a stray for people to look at. Either is durable before the message is
//! acknowledged.

use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::{Broker, ConsumeOptions, ConsumerEvent, Message};
use forecastle_protos::headers::{HeaderValue, ShardHeaders, name};
use forecastle_protos::ids::{LedgerId, ShardId};
use forecastle_protos::v1::Outcome;
use forecastle_protos::{names, v1};
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::effects::Effects;
use crate::ledger::{Error, Ledger, Stray};
use crate::metric_definitions::STRAYS;
use crate::stray::describe_headers;

/// The pause before a message that the ledger did not take is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// The service.
pub struct Returned {
    /// The truth.
    pub ledger: Arc<dyn Ledger>,
    /// Who hears of changes.
    pub effects: Effects,
}

impl Returned {
    /// Takes messages back until told to stop.
    pub async fn run(self, broker: Arc<dyn Broker>, stop: CancellationToken) -> anyhow::Result<()> {
        let options = ConsumeOptions { window: 64, exclusive: false, tag: "forecastle-frontend".to_owned() };
        let mut consumer = broker.consumer(names::RETURNED, options).await?;
        'messages: while let Some(Some(event)) = stop.run_until_cancelled(consumer.next()).await {
            let ConsumerEvent::Delivery(delivery) = event else { continue };
            while let Err(error) = self.take(&delivery.message).await {
                tracing::error!(%error, "a returned shard waits for the ledger");
                if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                    break 'messages;
                }
            }
            delivery.ack().await;
        }
        consumer.close().await;
        Ok(())
    }

    async fn take(&self, message: &Message) -> Result<(), Error> {
        let headers = ShardHeaders::decode(&message.headers);
        let traced = match &headers {
            Ok(headers) => Some((Some(headers.ledger), headers.shard, headers.attempt)),
            Err(_) => trace_by_body(message).or_else(|| trace_by_message_id(message)).map(|(s, a)| (None, s, a)),
        };
        let reason = match (&headers, death(message)) {
            (Err(error), _) => error.to_string(),
            (Ok(_), Some(death)) => format!("the broker gave the message back: {death}"),
            (Ok(_), None) => "no queue took the message".to_owned(),
        };
        match traced {
            Some((ledger, shard, attempt)) if self.is_ours(ledger) => {
                tracing::warn!(%shard, attempt, reason, "a shard came back from the broker");
                let changes = self.ledger.take_back(shard, attempt, counts_as(message), &reason, now_ms()).await?;
                if changes.strays > 0 {
                    return self.keep(message, &format!("{reason}; the ledger does not know shard {shard}")).await;
                }
                self.effects.spread(changes).await;
                Ok(())
            }
            Some(_) => self.keep(message, &format!("{reason}; it is another ledger's")).await,
            None => self.keep(message, &reason).await,
        }
    }

    fn is_ours(&self, ledger: Option<LedgerId>) -> bool {
        ledger.is_none_or(|ledger| ledger == self.ledger.id())
    }

    async fn keep(&self, message: &Message, reason: &str) -> Result<(), Error> {
        tracing::warn!(reason, "a returned message belongs to nothing here; it is kept as a stray");
        metrics::counter!(STRAYS, "queue" => "returned").increment(1);
        let stray = Stray {
            queue: names::RETURNED.to_owned(),
            reason: reason.to_owned(),
            headers: describe_headers(&message.headers),
            body: message.body.to_vec(),
            now_ms: now_ms(),
        };
        self.ledger.record_stray(stray).await
    }
}

fn trace_by_body(message: &Message) -> Option<(ShardId, u32)> {
    let shard = v1::Shard::decode(&*message.body).ok()?;
    Some((shard.shard_id.parse().ok()?, shard.attempt)).filter(|(_, attempt)| *attempt > 0)
}

fn trace_by_message_id(message: &Message) -> Option<(ShardId, u32)> {
    let (shard, attempt) = message.message_id.as_deref()?.rsplit_once('#')?;
    Some((shard.parse().ok()?, attempt.parse().ok()?)).filter(|(_, attempt)| *attempt > 0)
}

/// Against which budget it counts. What the broker gave up for its deliveries took down the consumers that had it, or
/// their channels: the broker's word for poison, which is the ledger's to count.
fn counts_as(message: &Message) -> Outcome {
    if death(message).as_deref() == Some(DELIVERY_LIMIT) { Outcome::WorkerLost } else { Outcome::Unsupported }
}

/// How RabbitMQ says that a message was delivered too often.
const DELIVERY_LIMIT: &str = "delivery_limit";

/// What a worker or the broker said when it gave the message up.
fn death(message: &Message) -> Option<String> {
    let text = |header: &str| match message.headers.get(header) {
        Some(HeaderValue::Text(text)) => Some(text.clone()),
        _ => None,
    };
    text(name::REJECTED_BECAUSE).or_else(|| text("x-first-death-reason"))
}
