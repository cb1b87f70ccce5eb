//! Load reports: the worker's heartbeat, and what the frontend knows of it.
//!
//! One goes out every interval, and at once when asked for, when draining begins and at the end. A report is a
//! snapshot: one that is lost is replaced by the next, so nothing is published again.

use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::{Address, Message, Publisher};
use forecastle_protos::ids::WorkerId;
use forecastle_protos::{PROTOBUF, names, v1};
use forecastle_resources::{Resource, ResourceVector};
use metrics::{counter, gauge};
use prost::Message as _;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::now_unix_ms;
use crate::live_runs::{RunSnapshot, ShareSnapshot, Snapshot};
use crate::metric_definitions::{CAPACITY, REPORTS, RESERVED, RUNS_LIVE};
use crate::node::LiveLoad;

/// How long the last report may take: the broker may be gone by then.
const LEAVING_WITHIN: Duration = Duration::from_secs(2);

/// What does not change in the life of a worker.
#[derive(Debug, Clone)]
pub struct Description {
    /// This life.
    pub worker: WorkerId,
    /// The operator's name for it.
    pub name: String,
    /// The fleet.
    pub fleet: String,
    /// All there is.
    pub capacity: ResourceVector,
    /// What it can run.
    pub units: Vec<String>,
    /// The hash of its catalogue.
    pub catalogue_hash: String,
    /// The class of machine.
    pub node_class: String,
    /// The machine's own name.
    pub host: String,
    /// How it enforces.
    pub enforcement: String,
    /// Time between reports.
    pub interval: Duration,
}

/// The service.
pub(crate) struct Reporter {
    description: Description,
    publisher: Arc<dyn Publisher>,
    snapshots: watch::Receiver<Snapshot>,
    asked: Arc<Notify>,
    sequence: u64,
}

impl Reporter {
    /// A reporter of what `snapshots` tell; `asked` asks for a report at once.
    pub(crate) fn new(
        description: Description,
        publisher: Arc<dyn Publisher>,
        snapshots: watch::Receiver<Snapshot>,
        asked: Arc<Notify>,
    ) -> Self {
        Self { description, publisher, snapshots, asked, sequence: 0 }
    }

    /// Reports until told to stop, and then a last time.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        self.describe_capacity();
        let mut every = tokio::time::interval(self.description.interval);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_draining = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = every.tick() => {}
                () = self.asked.notified() => every.reset(),
                draining = drain_changed(&mut self.snapshots, was_draining) => was_draining = draining,
            }
            // Publishing waits while the broker is away.
            if stop.run_until_cancelled(self.send(false)).await.is_none() {
                break;
            }
        }
        if tokio::time::timeout(LEAVING_WITHIN, self.send(true)).await.is_err() {
            tracing::warn!("the last load report was not sent: the broker does not answer");
        }
    }

    async fn send(&mut self, leaving: bool) {
        self.sequence += 1;
        let report = {
            let snapshot = self.snapshots.borrow_and_update();
            report(&self.description, &snapshot, LiveLoad::now(), self.sequence, leaving)
        };
        let message = Message {
            body: report.encode_to_vec().into(),
            content_type: Some(PROTOBUF.to_owned()),
            kind: Some("load-report".to_owned()),
            ..Message::default()
        };
        match self.publisher.publish(Address::exchange(names::LOAD, ""), message).await {
            // The last one has to be with the broker before the connection is closed.
            Ok(confirmation) if leaving => {
                confirmation.outcome().await;
            }
            Ok(_) => counter!(REPORTS).increment(1),
            Err(error) => tracing::warn!(%error, "a load report was not sent"),
        }
    }

    fn describe_capacity(&self) {
        for (resource, label) in RESOURCES {
            gauge!(CAPACITY, "resource" => label).set(self.description.capacity.get(&resource) as f64);
        }
    }
}

/// Waits until draining begins, or ends. For ever once the claimer has ended.
async fn drain_changed(snapshots: &mut watch::Receiver<Snapshot>, was_draining: bool) -> bool {
    if snapshots.wait_for(|snapshot| snapshot.draining != was_draining).await.is_err() {
        return std::future::pending().await;
    }
    !was_draining
}

const RESOURCES: [(Resource, &str); 4] =
    [(Resource::Cpu, "cpu"), (Resource::Memory, "memory"), (Resource::Io, "io"), (Resource::Scratch, "scratch")];

fn report(of: &Description, snapshot: &Snapshot, load: LiveLoad, sequence: u64, leaving: bool) -> v1::LoadReport {
    gauge!(RUNS_LIVE).set(snapshot.runs.len() as f64);
    for (resource, label) in RESOURCES {
        gauge!(RESERVED, "resource" => label).set(snapshot.held.get(&resource) as f64);
    }
    v1::LoadReport {
        worker_id: of.worker.to_string(),
        worker_name: of.name.clone(),
        fleet: of.fleet.clone(),
        sequence,
        at_unix_ms: now_unix_ms(),
        capacity: Some((&of.capacity).into()),
        free: Some((&snapshot.free).into()),
        guaranteed: snapshot
            .shares
            .iter()
            .filter(|share| !share.guaranteed.is_zero())
            .map(|share| (share.priority.to_string(), (&share.guaranteed).into()))
            .collect(),
        leases: snapshot.runs.iter().map(lease).collect(),
        units: of.units.clone(),
        catalogue_hash: of.catalogue_hash.clone(),
        node_class: of.node_class.clone(),
        load_average: load.average,
        memory_available_bytes: load.memory_available.0,
        draining: snapshot.draining || leaving,
        leaving,
        interval_seconds: of.interval.as_secs_f64(),
        enforcement: of.enforcement.clone(),
        shares: snapshot.shares.iter().map(share).collect(),
        offers: snapshot
            .offers
            .iter()
            .map(|key| v1::OfferReport { shard_id: key.shard.to_string(), attempt: key.attempt })
            .collect(),
        host: of.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn share(share: &ShareSnapshot) -> v1::ShareReport {
    v1::ShareReport {
        priority: share.priority.to_string(),
        guaranteed: Some((&share.guaranteed).into()),
        maximum: Some((&share.maximum).into()),
        held: Some((&share.held).into()),
    }
}

fn lease(run: &RunSnapshot) -> v1::LeaseReport {
    let (headers, usage) = (&run.assignment.headers, &run.usage);
    v1::LeaseReport {
        run_id: run.run.to_string(),
        shard_id: headers.shard.to_string(),
        attempt: headers.attempt,
        held: Some((&run.held).into()),
        since_unix_ms: run.since_unix_ms,
        memory_bytes_now: usage.memory().0,
        tenant: headers.tenant.clone(),
        request_type: headers.request_type.clone(),
        unit: run.assignment.shard.unit.clone(),
        priority: headers.priority.to_string(),
        size_class: headers.class.to_string(),
        cpu_millis_now: u32::try_from(usage.cpu().0).unwrap_or(u32::MAX),
        io_bytes_per_second_now: usage.io().0,
        scratch_bytes_now: usage.scratch().0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_broker::{Broker, ConsumeOptions, Consumer, ConsumerEvent, MemoryBroker, layout};
    use forecastle_resources::{Bytes, CpuMillis, Priority};

    async fn next(consumer: &mut dyn Consumer) -> v1::LoadReport {
        match consumer.next().await {
            Some(ConsumerEvent::Delivery(delivery)) => {
                let report = v1::LoadReport::decode(&*delivery.message.body).unwrap();
                delivery.ack().await;
                report
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reports_come_at_the_interval_when_asked_at_the_drain_and_at_the_end() {
        let broker = MemoryBroker::new();
        broker.declare(&layout::load_listener("load")).await.unwrap();
        let options = ConsumeOptions { window: 9, exclusive: true, tag: String::new() };
        let mut consumer = broker.consumer("load", options).await.unwrap();
        let capacity = ResourceVector::new(CpuMillis::cores(2), Bytes::gib(1));
        let description = Description {
            worker: WorkerId::new(),
            name: "one".to_owned(),
            fleet: "default".to_owned(),
            capacity: capacity.clone(),
            units: vec!["checksum".to_owned()],
            catalogue_hash: "abc".to_owned(),
            node_class: "xeon-2".to_owned(),
            host: "rack-7".to_owned(),
            enforcement: "rusage".to_owned(),
            interval: Duration::from_secs(10),
        };
        let urgent = ShareSnapshot {
            priority: Priority::Urgent,
            guaranteed: ResourceVector::new(CpuMillis(500), Bytes::mib(9)),
            maximum: ResourceVector::ZERO,
            held: ResourceVector::ZERO,
        };
        let empty = Snapshot { free: capacity.clone(), shares: vec![urgent], ..Snapshot::default() };
        let (snapshot, snapshots) = watch::channel(empty);
        let (asked, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let reporter = Reporter::new(description, broker.publisher(8).await.unwrap(), snapshots, Arc::clone(&asked));
        let started = tokio::time::Instant::now();
        let service = tokio::spawn(reporter.run(stop.clone()));

        let first = next(&mut *consumer).await;
        assert_eq!((first.sequence, first.draining, first.interval_seconds), (1, false, 10.0));
        assert_eq!((&*first.host, &*first.version), ("rack-7", env!("CARGO_PKG_VERSION")));
        assert_eq!(first.guaranteed["urgent"].cpu_millis, 500);
        assert_eq!(first.free, Some((&capacity).into()));
        assert_eq!(next(&mut *consumer).await.sequence, 2);
        assert_eq!(started.elapsed(), Duration::from_secs(10));

        let run = RunSnapshot {
            run: forecastle_protos::ids::RunId::new(),
            assignment: Arc::new(crate::sample::assignment()),
            held: ResourceVector::new(CpuMillis(700), Bytes::mib(1)),
            since_unix_ms: 5,
            usage: crate::execution::UsageNow::default(),
        };
        run.usage.set_memory(Bytes(77));
        run.usage.set_rates(CpuMillis(650), forecastle_resources::BytesPerSecond(4096));
        run.usage.set_scratch(Bytes(88));
        let share = ShareSnapshot {
            priority: Priority::Batch,
            guaranteed: ResourceVector::ZERO,
            maximum: capacity.clone(),
            held: run.held.clone(),
        };
        snapshot.send_modify(|s| {
            s.runs.push(run.clone());
            s.shares.push(share);
        });
        asked.notify_one();
        let third = next(&mut *consumer).await;
        assert_eq!(started.elapsed(), Duration::from_secs(10), "at once");
        assert_eq!(third.leases, [lease(&run)]);
        let told = &third.leases[0];
        assert_eq!((told.memory_bytes_now, told.cpu_millis_now, told.io_bytes_per_second_now), (77, 650, 4096));
        assert_eq!(told.scratch_bytes_now, 88);
        assert_eq!((&*told.tenant, &*told.request_type, &*told.priority), ("tests", "archive", "standard"));
        let batch = &third.shares[1];
        assert_eq!((&*batch.priority, &batch.maximum), ("batch", &Some((&capacity).into())));
        assert_eq!(batch.held.as_ref().unwrap().cpu_millis, 700);

        snapshot.send_modify(|s| s.draining = true);
        let fourth = next(&mut *consumer).await;
        assert!(fourth.draining && !fourth.leaving);
        assert_eq!(started.elapsed(), Duration::from_secs(10), "at once");
        stop.cancel();
        let last = next(&mut *consumer).await;
        assert!(last.draining && last.leaving && last.sequence == 5);
        service.await.unwrap();
    }
}
