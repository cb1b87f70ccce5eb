//! The queues that a worker takes offers from, and the consumer of each: one offer at a time.
//!
//! A queue is *open* while its consumer runs, and *parked* after its offer was handed back, so that somebody idle can
//! take that. A parked queue remembers what it offered: as long as that is fresh it stands among the offers, so that
//! others respect its start in the future, and the queue is opened again when it could be claimed; at the latest after
//! a pause that grows.

use std::sync::Arc;
use std::time::Duration;

use forecastle_admission::{Claim, Time};
use forecastle_broker::{Broker, ConsumeOptions, Consumer, ConsumerEvent, Error};
use forecastle_protos::names;
use forecastle_resources::{Priority, ReferenceWorker, ResourceVector, SizeClass};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::assignment::AttemptKey;
use crate::backoff::Backoff;
use crate::claimer::Message;

/// How long it takes at most until a queue that was opened offers something, unless it is empty.
const EXPECTED_WITHIN: Duration = Duration::from_secs(1);

/// The longest pause before a parked queue is opened again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A queue's number, among those of this worker.
pub(crate) type QueueIndex = usize;

/// An offer that was handed back.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    pub(crate) claim: Claim,
    pub(crate) released: Time,
    /// When it was first offered here.
    pub(crate) offered: Time,
}

enum State {
    Open(QueueConsumer),
    Parked { until: Instant },
}

/// What is known of the offer that would come next.
enum Memory {
    /// Nothing: none was handed back, or something else came since.
    Nothing,
    /// It waits like an offer in hand: as long as the queue is parked, and until it was due.
    Waits { offer: Remembered, due: Option<Instant> },
    /// It could be claimed, and is due by then.
    Expected { offer: Remembered, due: Instant },
}

/// One queue.
pub(crate) struct ShardQueue {
    name: String,
    state: State,
    memory: Memory,
    pauses: Backoff,
    /// When the offer that was handed back last had been offered first.
    first_offered: Option<(AttemptKey, Time)>,
}

/// All queues of a worker.
pub(crate) struct ShardQueues {
    queues: Vec<ShardQueue>,
    opener: Opener,
}

/// What a consumer needs.
struct Opener {
    broker: Arc<dyn Broker>,
    tag: String,
    mailbox: mpsc::Sender<Message>,
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

impl ShardQueues {
    /// Opens every queue in `names`. Offers go to `mailbox`.
    pub(crate) fn open(
        names: impl IntoIterator<Item = String>,
        broker: Arc<dyn Broker>,
        tag: String,
        hold: Duration,
        mailbox: mpsc::Sender<Message>,
    ) -> Self {
        let opener = Opener { broker, tag, mailbox };
        let queues = names.into_iter().enumerate().map(|(index, name)| ShardQueue {
            state: State::Open(opener.open(index, name.clone())),
            name,
            pauses: Backoff::new(hold, LONGEST_PAUSE.max(hold)),
            memory: Memory::Nothing,
            first_offered: None,
        });
        Self { queues: queues.collect(), opener }
    }

    /// Notes that a queue has offered something, and answers since when this attempt has been known here.
    pub(crate) fn offered(&mut self, index: QueueIndex, key: AttemptKey, now: Time) -> Time {
        let queue = &mut self.queues[index];
        queue.memory = Memory::Nothing;
        match queue.first_offered {
            Some((known, offered)) if known == key => offered,
            _ => now,
        }
    }

    /// Notes that an offer of this queue was claimed.
    pub(crate) fn claimed(&mut self, index: QueueIndex) {
        self.queues[index].pauses.reset();
        self.queues[index].first_offered = None;
    }

    /// Parks a queue that offered `key`, first at `offered`, and answers with the consumer to close before the offer goes
    /// back. `offer` is what the queue may be opened for before its pause is over.
    pub(crate) fn park(
        &mut self,
        index: QueueIndex,
        key: AttemptKey,
        offered: Time,
        offer: Option<Remembered>,
    ) -> Option<QueueConsumer> {
        let queue = &mut self.queues[index];
        queue.first_offered = Some((key, offered));
        queue.memory = offer.map_or(Memory::Nothing, |offer| Memory::Waits { offer, due: None });
        let until = Instant::now() + queue.pauses.next_pause();
        match std::mem::replace(&mut queue.state, State::Parked { until }) {
            State::Open(consumer) => Some(consumer),
            State::Parked { .. } => None,
        }
    }

    /// What waits without being in hand, for the choice.
    pub(crate) fn remembered(&self) -> impl Iterator<Item = (QueueIndex, &Remembered)> {
        self.queues.iter().enumerate().filter_map(|(index, queue)| match &queue.memory {
            Memory::Waits { offer, .. } => Some((index, offer)),
            Memory::Nothing | Memory::Expected { .. } => None,
        })
    }

    /// What is on its way and for which room is kept.
    pub(crate) fn expected(&self) -> impl Iterator<Item = &Claim> {
        self.queues.iter().filter_map(|queue| match &queue.memory {
            Memory::Expected { offer, .. } => Some(&offer.claim),
            Memory::Nothing | Memory::Waits { .. } => None,
        })
    }

    /// Expects what a queue offered, since it could be claimed now.
    pub(crate) fn expect(&mut self, index: QueueIndex) {
        let queue = &mut self.queues[index];
        if let State::Parked { .. } = queue.state {
            queue.state = State::Open(self.opener.open(index, queue.name.clone()));
        }
        queue.memory = match std::mem::replace(&mut queue.memory, Memory::Nothing) {
            Memory::Waits { offer, .. } => Memory::Expected { offer, due: Instant::now() + EXPECTED_WITHIN },
            other => other,
        };
    }

    /// Opens parked queues whose pause is over, and forgets what did not come.
    pub(crate) fn pass_time(&mut self) {
        let now = Instant::now();
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if matches!(queue.state, State::Parked { until } if until <= now) {
                queue.state = State::Open(self.opener.open(index, queue.name.clone()));
                if let Memory::Waits { due, .. } = &mut queue.memory {
                    // Others respect it until it is there.
                    *due = Some(now + EXPECTED_WITHIN);
                }
            }
            if queue.memory.due().is_some_and(|due| due <= now) {
                queue.memory = Memory::Nothing;
            }
        }
    }

    /// When [`Self::pass_time`] has something to do.
    pub(crate) fn next_change(&self) -> Option<Instant> {
        let times = self.queues.iter().flat_map(|queue| {
            let parked = match &queue.state {
                State::Parked { until } => Some(*until),
                State::Open(_) => None,
            };
            [parked, queue.memory.due()]
        });
        times.flatten().min()
    }

    /// Takes no more offers from any queue, ever, and answers with the consumers to close.
    pub(crate) fn into_consumers(self) -> Vec<QueueConsumer> {
        let open = |queue: ShardQueue| match queue.state {
            State::Open(consumer) => Some(consumer),
            State::Parked { .. } => None,
        };
        self.queues.into_iter().filter_map(open).collect()
    }
}

impl Memory {
    fn due(&self) -> Option<Instant> {
        match self {
            Self::Nothing => None,
            Self::Waits { due, .. } => *due,
            Self::Expected { due, .. } => Some(*due),
        }
    }
}

impl Opener {
    fn open(&self, index: QueueIndex, name: String) -> QueueConsumer {
        let stop = CancellationToken::new();
        let (broker, mailbox, tag) = (Arc::clone(&self.broker), self.mailbox.clone(), self.tag.clone());
        let task = tokio::spawn(consume(broker, index, name, tag, mailbox, stop.clone()));
        QueueConsumer { stop, task }
    }
}

/// A running consumer. Dropping it stops it without waiting.
pub(crate) struct QueueConsumer {
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
    index: QueueIndex,
    name: String,
    tag: String,
    mailbox: mpsc::Sender<Message>,
    stop: CancellationToken,
) {
    let options = ConsumeOptions { window: 1, exclusive: false, tag };
    let opening = open_consumer(&*broker, &name, &options);
    let Some(Some(mut consumer)) = stop.run_until_cancelled(opening).await else { return };
    while let Some(Some(event)) = stop.run_until_cancelled(consumer.next()).await {
        let message = match event {
            ConsumerEvent::Delivery(delivery) => Message::Offered(index, delivery),
            ConsumerEvent::Interrupted => Message::Interrupted(index),
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
