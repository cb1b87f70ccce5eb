//! The other side of the wire, over a broker in memory: it publishes shards and reads what workers say.

use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::{
    Address, Broker, ConsumeOptions, Consumer, ConsumerEvent, Delivery, MemoryBroker, Message, Publisher, layout,
};
use forecastle_protos::headers::ShardHeaders;
use forecastle_protos::ids::{LedgerId, RequestId, ShardId};
use forecastle_protos::v1::run_event::Kind;
use forecastle_protos::v1::{self, Outcome};
use forecastle_protos::{PROTOBUF, names};
use forecastle_resources::{Bytes, CpuMillis, Priority, Reservation, ResourceVector, SizeClass};
use forecastle_service::Shutdown;
use forecastle_worker::{Executor, Worker, WorkerOptions};
use prost::Message as _;
use tokio::task::JoinHandle;

/// The fleet of these tests.
pub(crate) const FLEET: &str = "default";

/// A shard to be.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) unit: &'static str,
    pub(crate) cpu: u64,
    pub(crate) memory: Bytes,
    pub(crate) scratch: Bytes,
    pub(crate) predicted: Duration,
    pub(crate) priority: Priority,
    pub(crate) class: SizeClass,
    pub(crate) deadline_unix_ms: Option<u64>,
}

impl Spec {
    /// A standard shard of class `s` with 16 MiB.
    pub(crate) fn new(unit: &'static str, cpu: u64, predicted_seconds: u64) -> Self {
        Self {
            unit,
            cpu,
            memory: Bytes::mib(16),
            scratch: Bytes::ZERO,
            predicted: Duration::from_secs(predicted_seconds),
            priority: Priority::Standard,
            class: SizeClass::S,
            deadline_unix_ms: None,
        }
    }

    pub(crate) fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    pub(crate) fn class(self, class: SizeClass) -> Self {
        Self { class, ..self }
    }
}

/// The name of a queue of these tests' fleet.
pub(crate) fn queue(priority: Priority, class: SizeClass) -> String {
    names::shard_queue(FLEET, priority, class)
}

/// A frontend's side of the wire.
pub(crate) struct FrontendSide {
    pub(crate) broker: MemoryBroker,
    pub(crate) ledger: LedgerId,
    publisher: Arc<dyn Publisher>,
    events: Option<Box<dyn Consumer>>,
    load: Box<dyn Consumer>,
    waiting: Vec<v1::RunEvent>,
    published: u32,
}

impl FrontendSide {
    /// With a queue for events.
    pub(crate) async fn new() -> Self {
        let mut side = Self::without_events().await;
        side.declare_events().await;
        side
    }

    /// Of a ledger that has no queue for events.
    pub(crate) async fn without_events() -> Self {
        let broker = MemoryBroker::new();
        let topology = layout::shards([FLEET]).and(layout::load_listener("load"));
        broker.declare(&topology).await.unwrap();
        let options = ConsumeOptions { window: 1000, exclusive: true, tag: String::new() };
        let load = broker.consumer("load", options).await.unwrap();
        let publisher = broker.publisher(64).await.unwrap();
        Self { broker, ledger: LedgerId::new(), publisher, events: None, load, waiting: Vec::new(), published: 0 }
    }

    pub(crate) async fn declare_events(&mut self) {
        self.broker.declare(&layout::completions(self.ledger)).await.unwrap();
        let options = ConsumeOptions { window: 1000, exclusive: true, tag: String::new() };
        self.events = Some(self.broker.consumer(&names::completions_queue(self.ledger), options).await.unwrap());
    }

    /// Publishes a shard's first attempt.
    pub(crate) async fn publish(&mut self, spec: &Spec) -> ShardId {
        let shard = ShardId { request: RequestId::new(), stage: 0, index: self.published };
        self.publish_as(spec, shard, 1).await;
        shard
    }

    pub(crate) async fn publish_as(&mut self, spec: &Spec, shard: ShardId, attempt: u32) {
        self.published += 1;
        let vector = ResourceVector::new(CpuMillis(spec.cpu), spec.memory).with_scratch(spec.scratch);
        let headers = ShardHeaders {
            ledger: self.ledger,
            shard,
            attempt,
            request_type: "testing".to_owned(),
            tenant: "tests".to_owned(),
            priority: spec.priority,
            class: spec.class,
            reservation: Reservation::new(vector, spec.predicted),
            quantile: 1.0,
            model_version: "declared".to_owned(),
            deadline_unix_ms: spec.deadline_unix_ms,
            traceparent: None,
        };
        let body = v1::Shard {
            stage: "only".to_owned(),
            unit: spec.unit.to_owned(),
            // Their order, since the machine's clock stands still in these tests.
            released_unix_ms: 1_000_000 + u64::from(self.published),
            shard_id: shard.to_string(),
            attempt,
            ..Default::default()
        };
        let message = Message {
            body: body.encode_to_vec().into(),
            headers: headers.encode(),
            content_type: Some(PROTOBUF.to_owned()),
            message_id: Some(format!("{shard}#{attempt}")),
            kind: Some("shard".to_owned()),
            persistent: true,
            ..Message::default()
        };
        self.publish_raw(&queue(spec.priority, spec.class), message).await;
    }

    /// Publishes anything to a queue of shards.
    pub(crate) async fn publish_raw(&mut self, queue: &str, message: Message) {
        let address = Address::exchange(names::SHARDS, queue);
        assert!(self.publisher.publish(address, message).await.unwrap().outcome().await.is_confirmed());
    }

    /// Tells the fleet something.
    pub(crate) async fn control(&mut self, kind: v1::control_message::Kind) {
        let body = v1::ControlMessage { kind: Some(kind) }.encode_to_vec().into();
        let message = Message { body, ..Message::default() };
        let address = Address::exchange(names::CONTROL, "");
        assert!(self.publisher.publish(address, message).await.unwrap().outcome().await.is_confirmed());
    }

    /// The next event of a run, within a (virtual) day.
    pub(crate) async fn event(&mut self) -> v1::RunEvent {
        while self.waiting.is_empty() {
            let consumer = self.events.as_mut().expect("this ledger has a queue");
            let delivery = delivery(&mut **consumer).await;
            self.waiting = v1::EventBatch::decode(&*delivery.message.body).unwrap().events;
            self.waiting.reverse();
            delivery.ack().await;
        }
        self.waiting.pop().unwrap()
    }

    /// The next claim.
    pub(crate) async fn claim(&mut self) -> v1::RunEvent {
        let event = self.event().await;
        assert!(matches!(event.kind, Some(Kind::Claimed(_))), "{event:?}");
        event
    }

    /// The next completion; claims before it are passed over.
    pub(crate) async fn completion(&mut self) -> (v1::RunEvent, v1::Completed) {
        loop {
            let event = self.event().await;
            if let Some(Kind::Completed(completed)) = event.kind.clone() {
                return (event, completed);
            }
        }
    }

    /// The outcome of the next completion, which is this shard's.
    pub(crate) async fn outcome_of(&mut self, shard: ShardId) -> Outcome {
        let (event, completed) = self.completion().await;
        assert_eq!(event.shard_id, shard.to_string());
        completed.outcome()
    }

    /// The next load report.
    pub(crate) async fn report(&mut self) -> v1::LoadReport {
        let delivery = delivery(&mut *self.load).await;
        let report = v1::LoadReport::decode(&*delivery.message.body).unwrap();
        delivery.ack().await;
        report
    }

    /// The next load report that is as wanted.
    pub(crate) async fn report_where(&mut self, wanted: impl Fn(&v1::LoadReport) -> bool) -> v1::LoadReport {
        loop {
            let report = self.report().await;
            if wanted(&report) {
                return report;
            }
        }
    }

    /// Messages that nobody has in hand.
    pub(crate) async fn ready(&self, queue: &str) -> u32 {
        self.broker.depth(queue).await.unwrap().unwrap().ready
    }

    /// Waits (a virtual minute) until a queue has that many ready messages.
    pub(crate) async fn until_ready(&self, queue: &str, count: u32) {
        for _ in 0..6000 {
            if self.ready(queue).await == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{queue} has {} ready messages, not {count}", self.ready(queue).await);
    }
}

async fn delivery(consumer: &mut dyn Consumer) -> Delivery {
    let day = Duration::from_hours(24);
    match tokio::time::timeout(day, consumer.next()).await.expect("nothing came for a day") {
        Some(ConsumerEvent::Delivery(delivery)) => *delivery,
        other => panic!("{other:?}"),
    }
}

/// A worker of 1000 m and 1 GiB on a connection of its own.
pub(crate) struct RunningWorker {
    pub(crate) broker: MemoryBroker,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
    _folder: tempfile::TempDir,
}

impl RunningWorker {
    pub(crate) async fn start(side: &FrontendSide, executor: Arc<dyn Executor>) -> Self {
        Self::start_with(side, executor, |_| {}).await
    }

    /// With other options, and once it consumes.
    pub(crate) async fn start_with(
        side: &FrontendSide,
        executor: Arc<dyn Executor>,
        change: impl FnOnce(&mut WorkerOptions),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = folder.path().join("catalogue.toml");
        std::fs::write(&catalogue, "version = 1\n[units.second]\ntask = \"tests.second\"\n").unwrap();
        let mut options = WorkerOptions { name: "tested".to_owned(), ..WorkerOptions::default() };
        options.catalogue.path = catalogue;
        options.capacity = ResourceVector::new(CpuMillis(1000), Bytes::gib(1));
        options.store.root = folder.path().join("store");
        options.scratch.root = folder.path().join("scratch");
        // The whole is one worker, so that every class is consumed.
        options.claiming.reference_worker = forecastle_resources::ReferenceWorker(options.capacity.clone());
        change(&mut options);
        let (broker, shutdown) = (side.broker.another_connection(), Shutdown::new());
        let worker =
            Worker::builder(options).broker(Arc::new(broker.clone())).executor(executor).shutdown(shutdown.clone());
        let consumers = consumers(side).await;
        let task = tokio::spawn(worker.run());
        while consumers_of(side, Priority::Standard).await <= consumers {
            assert!(!task.is_finished(), "the worker did not start: {:?}", task.await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Self { broker, shutdown, task, _folder: folder }
    }

    /// Drains it and waits for its end.
    pub(crate) async fn end(self) {
        self.shutdown.request_drain();
        self.task.await.unwrap().unwrap();
    }
}

async fn consumers(side: &FrontendSide) -> u32 {
    consumers_of(side, Priority::Standard).await
}

async fn consumers_of(side: &FrontendSide, priority: Priority) -> u32 {
    side.broker.depth(&queue(priority, SizeClass::S)).await.unwrap().unwrap().consumers
}
