//! The outbox: publishes what the ledger ordered until the broker has it, and marks that in the ledger.
//!
//! The attempt is durable in the ledger before it comes here, and in the broker once it is confirmed. A mark that is
//! lost with a crash means only that the message is published again after the restart, and the ledger knows the attempt
//! twice. While this life lasts a mark is kept until the ledger has it: without one the sweeper takes the attempt for one
//! that is still to be published, and does not miss its message.

use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::{Address, Message, PublishOutcome, Publisher};
use forecastle_protos::ids::ShardId;
use forecastle_protos::names;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::crash_points;
use crate::ledger::Ledger;

/// A message that waits to be published.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) shard: ShardId,
    pub(super) attempt: u32,
    pub(super) queue: String,
    pub(super) message: Message,
}

/// The service.
pub struct Outbox {
    ledger: Arc<dyn Ledger>,
    publisher: Arc<dyn Publisher>,
    outgoing: mpsc::Receiver<Outgoing>,
}

/// The most messages that wait to be taken up.
const QUEUE: usize = 1024;

/// The most messages that are being delivered.
const DELIVERING: usize = 512;

/// The most marks in one commit.
const MARKS: usize = 512;

/// The pause before what the broker or the ledger did not take is tried again, and the longest that a mark waits for
/// others.
const PAUSE: Duration = Duration::from_millis(500);

impl Outbox {
    pub(super) fn new(ledger: Arc<dyn Ledger>, publisher: Arc<dyn Publisher>) -> (Self, mpsc::Sender<Outgoing>) {
        let (sender, outgoing) = mpsc::channel(QUEUE);
        (Self { ledger, publisher, outgoing }, sender)
    }

    /// Publishes until told to stop. What is not confirmed by then is published again by the next life.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut delivering = FuturesUnordered::new();
        let mut marks: Vec<(ShardId, u32)> = Vec::new();
        let mut due = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(mark) = delivering.next() => {
                    if marks.is_empty() {
                        due = Instant::now() + PAUSE;
                    }
                    marks.extend(mark);
                }
                () = tokio::time::sleep_until(due), if !marks.is_empty() => {}
                next = self.outgoing.recv(), if delivering.len() < DELIVERING => match next {
                    Some(outgoing) => delivering.push(deliver(Arc::clone(&self.publisher), outgoing)),
                    None => return,
                },
            }
            // Marks are written once nothing is being delivered, there are many of them, or they have waited.
            let wait = marks.len() < MARKS && !delivering.is_empty() && Instant::now() < due;
            if !marks.is_empty() && !wait {
                match self.ledger.confirm(marks.clone()).await {
                    Ok(()) => marks.clear(),
                    Err(error) => {
                        tracing::warn!(%error, marks = marks.len(), "confirmed attempts are not marked yet");
                        due = Instant::now() + PAUSE;
                    }
                }
            }
        }
    }
}

/// Publishes a message as often as it takes. `None` only if the broker was closed: this life is over.
async fn deliver(publisher: Arc<dyn Publisher>, outgoing: Outgoing) -> Option<(ShardId, u32)> {
    loop {
        let to = Address::exchange(names::SHARDS, outgoing.queue.clone());
        // Durable: once confirmed, the broker has the attempt as well as the ledger.
        match publisher.publish(to, outgoing.message.clone()).await {
            Err(error) => {
                tracing::warn!(shard = %outgoing.shard, %error, "a shard was not published");
                return None;
            }
            Ok(confirmation) => match confirmation.outcome().await {
                PublishOutcome::Confirmed => {
                    crash_points::RELEASE_AFTER_CONFIRM.hit();
                    return Some((outgoing.shard, outgoing.attempt));
                }
                // The exchange has an alternate, so a return means that the topology is just being restored.
                outcome => tracing::warn!(shard = %outgoing.shard, ?outcome, "a shard is published again"),
            },
        }
        tokio::time::sleep(PAUSE).await;
    }
}
