//! Completions: events of runs, from the queue into the ledger.
//!
//! Whatever has arrived is applied in one transaction and acknowledged after it: the commit is the step that makes an
//! event durable here. An event that arrives twice, because a crash fell between commit and acknowledgement, changes
//! nothing the second time.

use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::{Broker, ConsumeOptions, Consumer, ConsumerEvent, Delivery};
use forecastle_history::outcome;
use forecastle_protos::names;
use forecastle_protos::v1::Outcome;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::crash_points;
use crate::effects::Effects;
use crate::ledger::{Ledger, RunEvent, Stray};
use crate::metric_definitions::{EVENTS, EVENTS_DUPLICATE, STRAYS};
use crate::stray::describe_headers;

/// The most messages in one transaction, and unsettled at a time.
const WINDOW: u16 = 256;

/// The pause before a batch that the ledger did not take is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// The service.
pub struct Completions {
    /// The truth.
    pub ledger: Arc<dyn Ledger>,
    /// Who hears of changes.
    pub effects: Effects,
}

impl Completions {
    /// Applies events until told to stop.
    pub async fn run(self, broker: Arc<dyn Broker>, stop: CancellationToken) -> anyhow::Result<()> {
        let queue = names::completions_queue(self.ledger.id());
        let options = ConsumeOptions { window: WINDOW, exclusive: false, tag: "forecastle-frontend".to_owned() };
        let mut consumer = broker.consumer(&queue, options).await?;
        while let Some(Some(event)) = stop.run_until_cancelled(consumer.next()).await {
            if let ConsumerEvent::Delivery(first) = event {
                let batch = gather(*first, &mut *consumer);
                self.take(&queue, batch, &stop).await;
            }
        }
        consumer.close().await;
        Ok(())
    }

    /// Applies a batch, as often as it takes, and acknowledges it. On shutdown it is left unsettled, so that it is
    /// delivered again.
    async fn take(&self, queue: &str, batch: Vec<Delivery>, stop: &CancellationToken) {
        let mut events = Vec::new();
        for delivery in &batch {
            match RunEvent::decode_batch(&delivery.message.body) {
                Ok((readable, unreadable)) => {
                    events.extend(readable);
                    for error in unreadable {
                        self.keep_stray(queue, delivery, &error.to_string()).await;
                    }
                }
                Err(error) => self.keep_stray(queue, delivery, &error.to_string()).await,
            }
        }
        for outcome in events.iter().filter_map(RunEvent::outcome) {
            metrics::counter!(EVENTS, "outcome" => outcome_label(outcome)).increment(1);
        }
        crash_points::COMPLETIONS_BEFORE_COMMIT.hit();
        let changes = loop {
            // Durable: from here on the broker may forget the events.
            match self.ledger.apply(events.clone(), now_ms()).await {
                Ok(changes) => break changes,
                Err(error) => {
                    tracing::error!(%error, events = events.len(), "events wait for the ledger");
                    if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                        return;
                    }
                }
            }
        };
        crash_points::COMPLETIONS_AFTER_COMMIT.hit();
        metrics::counter!(EVENTS_DUPLICATE).increment(changes.duplicates.into());
        metrics::counter!(STRAYS, "queue" => "completions").increment(changes.strays.into());
        settle(batch).await;
        crash_points::COMPLETIONS_AFTER_ACK.hit();
        self.effects.spread(changes).await;
    }

    async fn keep_stray(&self, queue: &str, delivery: &Delivery, reason: &str) {
        tracing::warn!(queue, reason, "an event cannot be read");
        metrics::counter!(STRAYS, "queue" => "completions").increment(1);
        let stray = Stray {
            queue: queue.to_owned(),
            reason: reason.to_owned(),
            headers: describe_headers(&delivery.message.headers),
            body: delivery.message.body.to_vec(),
            now_ms: now_ms(),
        };
        if let Err(error) = self.ledger.record_stray(stray).await {
            tracing::error!(%error, "a stray message was not kept");
        }
    }
}

/// `first` and whatever else has arrived already: nothing is waited for, so that a lone event is applied at once.
fn gather(first: Delivery, consumer: &mut dyn Consumer) -> Vec<Delivery> {
    let mut batch = vec![first];
    while batch.len() < usize::from(WINDOW) {
        match futures::FutureExt::now_or_never(consumer.next()) {
            Some(Some(ConsumerEvent::Delivery(delivery))) => batch.push(*delivery),
            Some(Some(ConsumerEvent::Interrupted)) => {}
            Some(None) | None => break,
        }
    }
    batch
}

async fn settle(batch: Vec<Delivery>) {
    for delivery in batch {
        // If its channel is gone it arrives again, and changes nothing.
        delivery.ack().await;
    }
}

/// The name of an outcome, in metrics and in history.
pub fn outcome_label(of: Outcome) -> &'static str {
    match of {
        Outcome::Succeeded => outcome::SUCCEEDED,
        Outcome::TaskError => outcome::TASK_ERROR,
        Outcome::PermanentError => outcome::PERMANENT_ERROR,
        Outcome::OutOfMemory => outcome::OUT_OF_MEMORY,
        Outcome::Timeout => outcome::TIMEOUT,
        Outcome::WorkerLost => outcome::WORKER_LOST,
        Outcome::Preempted => outcome::PREEMPTED,
        Outcome::Drained => outcome::DRAINED,
        Outcome::Cancelled => outcome::CANCELLED,
        // Events without an outcome are refused when they are decoded.
        Outcome::Unsupported | Outcome::Unspecified => outcome::UNSUPPORTED,
    }
}
