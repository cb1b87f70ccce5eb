//! The consumers of the queues that a worker takes offers from. Which are open when, and how wide their windows are, says
//! the [desk](forecastle_admission::Desk).

use std::sync::Arc;
use std::time::Duration;

use forecastle_admission::QueueIndex;
use forecastle_broker::{Broker, ConsumeOptions, Consumer, ConsumerEvent, Error};
use forecastle_protos::names;
use forecastle_resources::{Priority, ReferenceWorker, ResourceVector, SizeClass};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::claimer::Message;

/// One consumer, among all of a worker's life: a queue that is opened again has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ConsumerId {
    pub(crate) queue: QueueIndex,
    number: u64,
}

/// The queues of `fleet` whose shards a worker of this total capacity could hold, the most urgent first.
pub(crate) fn held_by(
    fleet: &str,
    capacity: &ResourceVector,
    reference: &ReferenceWorker,
) -> impl Iterator<Item = (Priority, SizeClass, String)> {
    let classes: Vec<_> = SizeClass::ALL.into_iter().filter(|class| reference.could_hold(capacity, *class)).collect();
    Priority::ALL
        .into_iter()
        .flat_map(move |priority| classes.clone().into_iter().map(move |class| (priority, class)))
        .map(move |(priority, class)| (priority, class, names::shard_queue(fleet, priority, class)))
}

/// The consumers of a worker: at most one a queue.
pub(crate) struct ShardConsumers {
    queues: Vec<(String, Option<QueueConsumer>)>,
    broker: Arc<dyn Broker>,
    tag: String,
    mailbox: mpsc::Sender<Message>,
    opened: u64,
}

impl ShardConsumers {
    /// None yet, for the queues of these names. Offers will go to `mailbox`.
    pub(crate) fn new(
        names: impl IntoIterator<Item = String>,
        broker: Arc<dyn Broker>,
        tag: String,
        mailbox: mpsc::Sender<Message>,
    ) -> Self {
        let queues = names.into_iter().map(|name| (name, None)).collect();
        Self { queues, broker, tag, mailbox, opened: 0 }
    }

    /// Consumes from a queue, at most so many unsettled offers at a time.
    pub(crate) fn open(&mut self, queue: QueueIndex, window: u16) {
        self.opened += 1;
        let id = ConsumerId { queue, number: self.opened };
        let stop = CancellationToken::new();
        let (name, consumer) = &mut self.queues[queue];
        let options = ConsumeOptions { window, exclusive: false, tag: self.tag.clone() };
        let (broker, mailbox) = (Arc::clone(&self.broker), self.mailbox.clone());
        let task = tokio::spawn(consume(broker, id, name.clone(), options, mailbox, stop.clone()));
        *consumer = Some(QueueConsumer { id, stop, task });
    }

    /// True if this is still its queue's consumer.
    pub(crate) fn is_open(&self, id: ConsumerId) -> bool {
        self.queues[id.queue].1.as_ref().is_some_and(|consumer| consumer.id == id)
    }

    /// The consumer of a queue, for the caller to close.
    pub(crate) fn take(&mut self, queue: QueueIndex) -> Option<QueueConsumer> {
        self.queues[queue].1.take()
    }

    /// All that there are, for the caller to close.
    pub(crate) fn take_all(&mut self) -> Vec<QueueConsumer> {
        self.queues.iter_mut().filter_map(|(_, consumer)| consumer.take()).collect()
    }
}

/// A running consumer. Dropping it stops it without waiting.
pub(crate) struct QueueConsumer {
    id: ConsumerId,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl QueueConsumer {
    /// Stops it, and waits until the broker sends no more.
    pub(crate) async fn close(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "a consumer of shards failed");
        }
    }
}

impl Drop for QueueConsumer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Passes offers on until stopped, or until the broker is closed.
async fn consume(
    broker: Arc<dyn Broker>,
    id: ConsumerId,
    name: String,
    options: ConsumeOptions,
    mailbox: mpsc::Sender<Message>,
    stop: CancellationToken,
) {
    let opening = open_consumer(&*broker, &name, &options);
    let Some(Some(mut consumer)) = stop.run_until_cancelled(opening).await else { return };
    while let Some(Some(event)) = stop.run_until_cancelled(consumer.next()).await {
        let message = match event {
            ConsumerEvent::Delivery(delivery) => Message::Offered(id, delivery),
            ConsumerEvent::Interrupted => Message::Interrupted(id),
        };
        if let Err(mpsc::error::SendError(Message::Offered(_, delivery))) = mailbox.send(message).await {
            delivery.requeue().await;
            break;
        }
    }
    consumer.close().await;
}

/// Opens a consumer, as often as it takes; `None` once the broker is closed.
pub(crate) async fn open_consumer(
    broker: &dyn Broker,
    name: &str,
    options: &ConsumeOptions,
) -> Option<Box<dyn Consumer>> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        match broker.consumer(name, options.clone()).await {
            Ok(consumer) => return Some(consumer),
            Err(Error::Closed) => return None,
            Err(error) => {
                let pause = backoff.next_pause();
                tracing::warn!(queue = name, %error, ?pause, "cannot consume from this queue; trying again");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_resources::{Bytes, CpuMillis};

    #[test]
    fn a_worker_takes_offers_only_of_classes_that_it_could_hold() {
        let reference = ReferenceWorker::default();
        let queues = |cpu, gib| -> Vec<String> {
            let capacity = ResourceVector::new(CpuMillis::cores(cpu), Bytes::gib(gib));
            held_by("default", &capacity, &reference).map(|(_, _, name)| name).collect()
        };
        assert_eq!(queues(8, 16).len(), 15);
        let small = queues(1, 1);
        assert_eq!(small.len(), 6, "{small:?}");
        assert_eq!(small[0], "forecastle.shards.default.urgent.tiny");
        assert_eq!(small[5], "forecastle.shards.default.batch.s");
        assert!(queues(1, 5).contains(&"forecastle.shards.default.standard.l".to_owned()), "memory alone suffices");
    }
}
