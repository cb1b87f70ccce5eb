//! Events: what a worker tells ledgers about its runs, in batches that are kept until the broker has them.
//!
//! A batch is up to [`MOST_EVENTS`] events of one ledger, gathered for at most [`LINGER`], and at once when no other
//! batch is under way. It is published again until it is confirmed, so that an event may arrive twice (the ledger
//! counts each run's once) and a completion is never dropped while the process lives. The first word about a run
//! alone can fail: if its ledger has no queue, nobody waits for the run.
//!
//! What waits here is bounded by the runs: each has at most one event under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::{Address, Error, Message, PublishOutcome, Publisher};
use forecastle_protos::ids::LedgerId;
use forecastle_protos::v1::run_event::Kind;
use forecastle_protos::{PROTOBUF, names, v1};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::metric_definitions::{EVENT_BATCH, EVENT_RETRIES, EVENTS_UNCONFIRMED};

/// The most events in a message.
pub const MOST_EVENTS: usize = 64;

/// The most bytes of events in a message, unless one event alone is larger.
const MOST_BYTES: usize = 1 << 20;

/// How long a batch waits for more events while another is under way.
pub const LINGER: Duration = Duration::from_millis(5);

/// Events that wait to be gathered; who sends more waits.
const QUEUE: usize = 256;

/// Pauses before a batch is published again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Why an event was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// The ledger of a run's first event has no queue on this virtual host.
    #[error("the ledger has no queue for completions on this virtual host")]
    NoLedger,
    /// No message can carry it, although everything that may be left out is.
    #[error("no message can carry the event")]
    Unsendable,
    /// The worker gave up: its connection was closed for good.
    #[error("the worker stopped before the event was confirmed")]
    Stopped,
}

/// Sends events. Cheap to clone. The publisher ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct Events(mpsc::Sender<Entry>);

#[derive(Debug)]
struct Entry {
    ledger: LedgerId,
    event: v1::RunEvent,
    /// True of the first word about a run, which nobody waits for if its ledger has no queue.
    first: bool,
    answer: oneshot::Sender<Result<(), Undelivered>>,
}

impl Events {
    /// Sends an event, and waits until the broker has it.
    pub async fn send(&self, ledger: LedgerId, event: v1::RunEvent) -> Result<(), Undelivered> {
        self.enter(ledger, event, false).await
    }

    /// The same with the first event of a run: a claim, or the completion of a run that is not claimed before. It fails
    /// if its ledger has no queue.
    pub async fn send_first(&self, ledger: LedgerId, event: v1::RunEvent) -> Result<(), Undelivered> {
        self.enter(ledger, event, true).await
    }

    async fn enter(&self, ledger: LedgerId, event: v1::RunEvent, first: bool) -> Result<(), Undelivered> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Entry { ledger, event, first, answer }).await.map_err(|_| Undelivered::Stopped)?;
        answered.await.unwrap_or(Err(Undelivered::Stopped))
    }
}

/// The service that publishes them.
pub struct EventPublisher {
    publisher: Arc<dyn Publisher>,
    entries: mpsc::Receiver<Entry>,
}

impl EventPublisher {
    /// A service over `publisher`, and what feeds it.
    pub fn new(publisher: Arc<dyn Publisher>) -> (Self, Events) {
        let (sender, entries) = mpsc::channel(QUEUE);
        (Self { publisher, entries }, Events(sender))
    }

    /// Publishes until every [`Events`] is gone and everything is confirmed, or until `abandon`.
    pub async fn run(mut self, abandon: CancellationToken) {
        let mut under_way = JoinSet::new();
        let abandoned = abandon.run_until_cancelled(async {
            loop {
                tokio::select! {
                    // It bears being polled after the last sender is gone: the loop ends then.
                    entry = self.entries.recv() => {
                        let Some(first) = entry else { break };
                        for (ledger, batch) in gather(first, &mut self.entries, under_way.is_empty()).await {
                            under_way.spawn(deliver(Arc::clone(&self.publisher), ledger, batch));
                        }
                    }
                    Some(result) = under_way.join_next() => report_panic(result),
                }
            }
            while let Some(result) = under_way.join_next().await {
                report_panic(result);
            }
        });
        if abandoned.await.is_none() {
            tracing::warn!(batches = under_way.len(), "events were given up; the ledger will declare their runs lost");
        }
        metrics::gauge!(EVENTS_UNCONFIRMED).set(0.0);
    }
}

fn report_panic(result: Result<(), tokio::task::JoinError>) {
    if let Err(error) = result {
        // Whoever waits for these events hears that they were not delivered.
        tracing::error!(%error, "a batch of events was lost");
    }
}

/// `first` and what comes soon after it, by ledger.
async fn gather(first: Entry, entries: &mut mpsc::Receiver<Entry>, idle: bool) -> BTreeMap<LedgerId, Vec<Entry>> {
    let mut bytes = first.event.encoded_len();
    let mut batches = BTreeMap::from([(first.ledger, vec![first])]);
    let until = if idle { Instant::now() } else { Instant::now() + LINGER };
    let mut count = 1;
    while count < MOST_EVENTS && bytes < MOST_BYTES {
        let next = match entries.try_recv() {
            Ok(next) => Some(next),
            Err(_) if idle => None,
            Err(_) => tokio::time::timeout_at(until, entries.recv()).await.ok().flatten(),
        };
        let Some(next) = next else { break };
        bytes += next.event.encoded_len();
        count += 1;
        batches.entry(next.ledger).or_default().push(next);
    }
    batches
}

/// Publishes one batch until the broker has it.
async fn deliver(publisher: Arc<dyn Publisher>, ledger: LedgerId, batch: Vec<Entry>) {
    metrics::histogram!(EVENT_BATCH).record(batch.len() as f64);
    let waiting = metrics::gauge!(EVENTS_UNCONFIRMED);
    waiting.increment(batch.len() as f64);
    let count = batch.len();
    persist(&*publisher, ledger, batch).await;
    waiting.decrement(count as f64);
}

async fn persist(publisher: &dyn Publisher, ledger: LedgerId, batch: Vec<Entry>) {
    let queue = names::completions_queue(ledger);
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    // A batch that is too large for a message is published in halves.
    let mut parts = vec![batch];
    while let Some(mut part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        let outcome = match publisher.publish(Address::queue(&*queue), message(&part)).await {
            Ok(confirmation) => confirmation.outcome().await,
            Err(Error::Message(reason)) => {
                if part.len() > 1 {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                } else if part.iter_mut().all(|entry| shorten(&mut entry.event, &reason)) {
                    parts.push(part);
                } else {
                    tracing::error!(%ledger, reason, "an event cannot be sent");
                    answer(part, Err(Undelivered::Unsendable));
                }
                continue;
            }
            Err(Error::Closed) => {
                answer(part.into_iter().chain(parts.into_iter().flatten()), Err(Undelivered::Stopped));
                return;
            }
            Err(error) => PublishOutcome::Unknown { reason: error.to_string() },
        };
        let reason = match outcome {
            PublishOutcome::Confirmed => {
                answer(part, Ok(()));
                backoff.reset();
                continue;
            }
            PublishOutcome::Returned { reason } => {
                let (first, others): (Vec<_>, Vec<_>) = part.into_iter().partition(|entry| entry.first);
                answer(first, Err(Undelivered::NoLedger));
                part = others;
                if part.is_empty() {
                    continue;
                }
                reason
            }
            PublishOutcome::Nacked => "the broker refused the message".to_owned(),
            PublishOutcome::Unknown { reason } => reason,
        };
        let pause = backoff.next_pause();
        tracing::warn!(%ledger, events = part.len(), reason, ?pause, "events are kept and published again");
        metrics::counter!(EVENT_RETRIES).increment(1);
        parts.push(part);
        tokio::time::sleep(pause).await;
    }
}

fn answer(entries: impl IntoIterator<Item = Entry>, with: Result<(), Undelivered>) {
    for entry in entries {
        // Who does not wait any more need not know.
        let _ = entry.answer.send(with);
    }
}

fn message(entries: &[Entry]) -> Message {
    let events = entries.iter().map(|entry| entry.event.clone()).collect();
    Message {
        body: v1::EventBatch { events }.encode_to_vec().into(),
        content_type: Some(PROTOBUF.to_owned()),
        kind: Some("events".to_owned()),
        persistent: true,
        ..Message::default()
    }
}

/// Makes an event fit into a message: a result that cannot be told is a failure that would happen again. Answers
/// `false` if there is nothing to leave out.
fn shorten(event: &mut v1::RunEvent, reason: &str) -> bool {
    let Some(Kind::Completed(completed)) = &mut event.kind else { return false };
    let is_short = completed.outcome() == v1::Outcome::PermanentError
        && completed.files.is_empty()
        && completed.inline_json.is_empty()
        && completed.log_tail.is_empty();
    if !is_short {
        let files = completed.files.len();
        completed.error = format!("the event of this run is too large to be sent ({files} output files): {reason}");
        completed.outcome = v1::Outcome::PermanentError.into();
        completed.files.clear();
        completed.inline_json.clear();
        completed.log_tail.clear();
        completed.forecast = None;
        completed.adjustments.clear();
    }
    !is_short
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use forecastle_broker::{Broker, Confirmation, ConsumeOptions, Consumer, ConsumerEvent, MemoryBroker, layout};
    use tokio::sync::Semaphore;

    fn claim(run: usize) -> v1::RunEvent {
        v1::RunEvent {
            run_id: run.to_string(),
            kind: Some(Kind::Claimed(v1::Claimed::default())),
            ..Default::default()
        }
    }

    fn completion(run: usize) -> v1::RunEvent {
        let completed = v1::Completed { outcome: v1::Outcome::Succeeded.into(), ..Default::default() };
        v1::RunEvent { run_id: run.to_string(), kind: Some(Kind::Completed(completed)), ..Default::default() }
    }

    struct Setup {
        broker: MemoryBroker,
        ledger: LedgerId,
        events: Events,
        service: tokio::task::JoinHandle<()>,
        abandon: CancellationToken,
    }

    async fn setup() -> Setup {
        let broker = MemoryBroker::new();
        let (service, events) = EventPublisher::new(broker.publisher(64).await.unwrap());
        let abandon = CancellationToken::new();
        let service = tokio::spawn(service.run(abandon.clone()));
        Setup { broker, ledger: LedgerId::new(), events, service, abandon }
    }

    impl Setup {
        async fn with_queue(self) -> (Self, Box<dyn Consumer>) {
            self.broker.declare(&layout::completions(self.ledger)).await.unwrap();
            let options = ConsumeOptions { window: 100, exclusive: false, tag: String::new() };
            let consumer = self.broker.consumer(&names::completions_queue(self.ledger), options).await.unwrap();
            (self, consumer)
        }
    }

    /// The runs of the next batch.
    async fn next_batch(consumer: &mut dyn Consumer) -> Vec<String> {
        loop {
            if let ConsumerEvent::Delivery(delivery) = consumer.next().await.unwrap() {
                let batch = v1::EventBatch::decode(&*delivery.message.body).unwrap();
                assert!(delivery.message.persistent);
                delivery.ack().await;
                return batch.events.into_iter().map(|event| event.run_id).collect();
            }
        }
    }

    /// A publisher that takes a message only when the test lets it, and refuses as told before.
    struct Scripted {
        inner: Arc<dyn Publisher>,
        refusals: Mutex<VecDeque<Error>>,
        gate: Semaphore,
    }

    #[async_trait::async_trait]
    impl Publisher for Scripted {
        async fn publish(&self, to: Address, message: Message) -> Result<Confirmation, Error> {
            self.gate.acquire().await.unwrap().forget();
            let refusal = self.refusals.lock().unwrap().pop_front();
            match refusal {
                Some(error) => Err(error),
                None => self.inner.publish(to, message).await,
            }
        }
    }

    async fn scripted(refusals: impl IntoIterator<Item = Error>, permits: usize) -> (Setup, Arc<Scripted>) {
        let setup = setup().await;
        let inner = setup.broker.publisher(64).await.unwrap();
        let refusals = Mutex::new(refusals.into_iter().collect());
        let publisher = Arc::new(Scripted { inner, refusals, gate: Semaphore::new(permits) });
        let (service, events) = EventPublisher::new(Arc::clone(&publisher) as Arc<dyn Publisher>);
        let service = tokio::spawn(service.run(setup.abandon.clone()));
        (Setup { events, service, ..setup }, publisher)
    }

    fn send(setup: &Setup, event: v1::RunEvent) -> tokio::task::JoinHandle<Result<(), Undelivered>> {
        let (events, ledger) = (setup.events.clone(), setup.ledger);
        let first = matches!(event.kind, Some(Kind::Claimed(_)));
        tokio::spawn(async move {
            if first { events.send_first(ledger, event).await } else { events.send(ledger, event).await }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_event_goes_at_once_and_those_after_it_go_together() {
        let (setup, publisher) = scripted([], 0).await;
        let (setup, mut consumer) = setup.with_queue().await;
        let mut sent = vec![send(&setup, claim(0))];
        tokio::time::sleep(Duration::from_millis(1)).await;
        for run in 1..=3 {
            sent.push(send(&setup, completion(run)));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(LINGER).await;
        publisher.gate.add_permits(2);
        assert_eq!(next_batch(&mut *consumer).await, ["0"]);
        assert_eq!(next_batch(&mut *consumer).await, ["1", "2", "3"]);
        for answer in sent {
            assert_eq!(answer.await.unwrap(), Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_holds_at_most_64_events_of_one_ledger() {
        let (setup, publisher) = scripted([], 0).await;
        let (setup, mut consumer) = setup.with_queue().await;
        let other = LedgerId::new();
        setup.broker.declare(&layout::completions(other)).await.unwrap();
        let first = send(&setup, claim(0));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let rest: Vec<_> = (1..=MOST_EVENTS + 6).map(|run| send(&setup, completion(run))).collect();
        let events = setup.events.clone();
        let elsewhere = tokio::spawn(async move { events.send(other, completion(99)).await });
        tokio::time::sleep(LINGER * 4).await;
        publisher.gate.add_permits(100);
        assert_eq!(next_batch(&mut *consumer).await.len(), 1);
        assert_eq!(next_batch(&mut *consumer).await.len(), MOST_EVENTS);
        assert_eq!(next_batch(&mut *consumer).await.len(), 6, "the other ledger's event is not among them");
        for answer in rest.into_iter().chain([first, elsewhere]) {
            assert_eq!(answer.await.unwrap(), Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_confirmed_is_published_again() {
        let (setup, mut consumer) = setup().await.with_queue().await;
        setup.broker.lose_confirms(1);
        let sent = send(&setup, completion(7));
        assert_eq!(next_batch(&mut *consumer).await, ["7"]);
        assert_eq!(next_batch(&mut *consumer).await, ["7"]);
        assert_eq!(sent.await.unwrap(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_queue_a_claim_fails_and_a_completion_waits() {
        let setup = setup().await;
        let completed = send(&setup, completion(1));
        assert_eq!(send(&setup, claim(2)).await.unwrap(), Err(Undelivered::NoLedger));
        tokio::time::sleep(Duration::from_mins(10)).await;
        assert!(!completed.is_finished());
        let (_setup, mut consumer) = setup.with_queue().await;
        assert_eq!(next_batch(&mut *consumer).await, ["1"]);
        assert_eq!(completed.await.unwrap(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_large_is_halved_and_at_last_told_as_a_failure() {
        let too_large = || Error::Message("its body is too large".to_owned());
        let (setup, publisher) = scripted([too_large(), too_large()], 0).await;
        let (setup, mut consumer) = setup.with_queue().await;
        let first = send(&setup, completion(0));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let rest = [send(&setup, completion(1)), send(&setup, completion(2))];
        tokio::time::sleep(LINGER * 2).await;
        // The single event is refused and shortened, then the pair is refused and halved.
        publisher.gate.add_permits(2);
        tokio::time::sleep(Duration::from_millis(1)).await;
        publisher.gate.add_permits(100);
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let Some(ConsumerEvent::Delivery(delivery)) = consumer.next().await else { panic!("no delivery") };
            seen.extend(v1::EventBatch::decode(&*delivery.message.body).unwrap().events);
            delivery.ack().await;
        }
        seen.sort_by(|a, b| a.run_id.cmp(&b.run_id));
        let outcomes: Vec<_> = seen
            .iter()
            .map(|event| match &event.kind {
                Some(Kind::Completed(completed)) => completed.outcome(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(outcomes, [v1::Outcome::PermanentError, v1::Outcome::Succeeded, v1::Outcome::Succeeded]);
        for answer in rest.into_iter().chain([first]) {
            assert_eq!(answer.await.unwrap(), Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_all_is_confirmed_or_given_up() {
        let (setup, mut consumer) = setup().await.with_queue().await;
        let sent = send(&setup, completion(1));
        let Setup { events, service, .. } = setup;
        drop(events);
        assert_eq!(next_batch(&mut *consumer).await, ["1"]);
        service.await.unwrap();
        assert_eq!(sent.await.unwrap(), Ok(()));

        let setup = self::setup().await;
        let sent = send(&setup, completion(1));
        tokio::time::sleep(Duration::from_secs(1)).await;
        setup.abandon.cancel();
        assert_eq!(sent.await.unwrap(), Err(Undelivered::Stopped));
        setup.service.await.unwrap();
    }
}
