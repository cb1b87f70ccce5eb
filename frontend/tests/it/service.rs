//! A frontend that really listens on HTTP and reads the queue of requests, with a fleet that is a statement and workers that are the test itself.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::{Broker, ConsumeOptions, Consumer, ConsumerEvent, MemoryBroker, layout};
use forecastle_forecast::DeclaredForecaster;
use forecastle_frontend::catalogue_store::CatalogueStore;
use forecastle_frontend::control::Control;
use forecastle_frontend::demand::Demand;
use forecastle_frontend::dispatcher::Dispatcher;
use forecastle_frontend::effects::Effects;
use forecastle_frontend::failure_policy::CataloguePolicy;
use forecastle_frontend::fleet::{FleetView, Worker};
use forecastle_frontend::forecasting::Sizing;
use forecastle_frontend::ingress::amqp::{AmqpIngress, BodyLimit};
use forecastle_frontend::ingress::http::{Api, HttpOptions, Server};
use forecastle_frontend::intake::Intake;
use forecastle_frontend::ledger::sqlite::SqliteLedger;
use forecastle_frontend::ledger::{EventKind, InFlight, Ledger, RunEvent};
use forecastle_frontend::planner::Planner;
use forecastle_frontend::replies::Replies;
use forecastle_frontend::roots::AllowedRoots;
use forecastle_frontend::sweeper::Sweeper;
use forecastle_frontend::tokens::{TokenOptions, Tokens};
use forecastle_protos::ids::{RequestId, RunId, WorkerId};
use forecastle_protos::v1::{self, Outcome};
use forecastle_resources::{Bytes, CpuMillis, ReferenceWorker, ResourceVector};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(super) const CATALOGUE: &str = r#"
version = 1

[types.note]
description = "Writes a note."
input = "none"
parameters.level = { kind = "integer", default = 3, minimum = 1, maximum = 9 }
stages = [{ name = "write", units = ["write"], over = "once" }]

[types.copy]
input = "directory"

[[types.copy.stages]]
name = "work"
units = ["copy"]
over = "items"
shard = { target_bytes = "1B", max_items = 1 }

[[types.copy.stages]]
name = "last"
units = ["sum"]
over = "once"
depends_on = ["work"]

[types.pick]
input = "items"

[[types.pick.stages]]
name = "work"
units = ["copy"]
over = "items"
shard = { target_bytes = "1B", max_items = 1 }

[types.letter]
input = "none"
parameters.to = { kind = "text" }
stages = [{ name = "write", units = ["write"], over = "once" }]

[units.write]
task = "test.write"

[units.copy]
command = ["/bin/cp", "--", "{input}", "{output}"]
reserve = { memory = "64MiB", cpu = "500m" }
retry = { errors = 1, backoff = "1h" }

[units.sum]
task = "test.sum"
"#;

/// The tokens of two tenants.
pub(super) const TOKEN: &str = "token-of-acme-0001";
pub(super) const OTHER_TOKEN: &str = "token-of-other-002";
pub(super) const OPERATOR_TOKEN: &str = "token-of-operations-003";

/// The longest that anything is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The largest body.
pub(super) const MAX_BODY: u64 = 64 * 1024;

pub(super) struct Service {
    pub(super) ledger: Arc<SqliteLedger>,
    pub(super) effects: Effects,
    pub(super) progress: broadcast::Sender<RequestId>,
    pub(super) broker: MemoryBroker,
    pub(super) stop: CancellationToken,
    pub(super) address: std::net::SocketAddr,
    /// The folder that inputs may come from.
    pub(super) input: PathBuf,
    pub(super) worker: WorkerId,
    fleet: watch::Sender<Arc<FleetView>>,
    client: reqwest::Client,
    pub(super) tasks: JoinSet<()>,
    /// Removed with the service.
    _folder: TempDir,
}

impl Service {
    pub(super) async fn start() -> Self {
        Self::start_with(HttpOptions::default(), 1024).await
    }

    /// Starts with options, of which the address and the bounds are replaced; `changes` that are not read yet are
    /// kept for watchers.
    pub(super) async fn start_with(options: HttpOptions, changes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("input");
        std::fs::create_dir(&input).unwrap();
        for (name, text) in [("a.txt", "alpha"), ("b.txt", "beta")] {
            std::fs::write(input.join(name), text).unwrap();
        }
        let catalogue_file = folder.path().join("catalogue.toml");
        std::fs::write(&catalogue_file, CATALOGUE).unwrap();
        let catalogue = Arc::new(CatalogueStore::load(catalogue_file).unwrap());
        let roots = AllowedRoots::new(std::slice::from_ref(&input)).unwrap();
        let policy = Arc::new(CataloguePolicy::new(Arc::clone(&catalogue)));
        let sqlite = Arc::new(SqliteLedger::open(&folder.path().join("ledger"), policy).unwrap());
        let ledger: Arc<dyn Ledger> = Arc::clone(&sqlite) as _;
        let sizing = Sizing::new(Arc::new(DeclaredForecaster::default()), ReferenceWorker::default());

        let broker = MemoryBroker::new();
        broker.declare(&layout::shards(["default"])).await.unwrap();
        broker.declare(&layout::fanouts()).await.unwrap();
        broker.declare(&layout::requests()).await.unwrap();
        let (fleet, view) = watch::channel(Arc::default());
        let (dispatcher, handle, outbox) = Dispatcher::new(
            Arc::clone(&ledger),
            Arc::clone(&catalogue),
            sizing.clone(),
            view.clone(),
            Demand::default(),
            broker.publisher(64).await.unwrap(),
        );
        let (finished, ended) = mpsc::unbounded_channel();
        let (progress, _) = broadcast::channel(changes);
        let effects = Effects {
            dispatcher: handle,
            control: Control::new(broker.publisher(64).await.unwrap()),
            finished,
            recorded: Arc::new(Notify::new()),
            progress: progress.clone(),
        };
        let admitted = Arc::new(Notify::new());
        let intake = Intake::new(Arc::clone(&ledger), Arc::clone(&catalogue), roots.clone(), Arc::clone(&admitted));
        let intake = Arc::new(intake);
        let (owed, owed_again) = mpsc::channel(16);
        let ingress = AmqpIngress {
            intake: Arc::clone(&intake),
            publisher: broker.publisher(64).await.unwrap(),
            body_limit: BodyLimit(usize::try_from(MAX_BODY).unwrap()),
            owed,
        };
        let publisher = broker.publisher(64).await.unwrap();
        let replies = Replies { ledger: Arc::clone(&ledger), publisher, finished: ended, owed_again };
        let planner = Planner {
            ledger: Arc::clone(&ledger),
            catalogue: Arc::clone(&catalogue),
            roots,
            admitted,
            effects: effects.clone(),
        };
        let token =
            |tenant: &str, token: &str, operator| TokenOptions { tenant: tenant.into(), token: token.into(), operator };
        let api = Api {
            ledger: Arc::clone(&ledger),
            intake,
            catalogue,
            sizing,
            fleet: view,
            effects: effects.clone(),
            progress: progress.clone(),
            tokens: Tokens::new(&[
                token("acme", TOKEN, false),
                token("other", OTHER_TOKEN, false),
                token("operations", OPERATOR_TOKEN, true),
            ]),
        };
        let options = HttpOptions { listen: ([127, 0, 0, 1], 0).into(), max_body: Bytes(MAX_BODY), ..options };
        let server = Server::bind(&options).await.unwrap();
        let address = server.local_addr();

        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let work = ledger.open_work().await.unwrap();
        tasks.spawn(outbox.run(stop.clone()));
        tasks.spawn(dispatcher.run(work, stop.clone()));
        tasks.spawn(planner.run(stop.clone()));
        tasks.spawn(replies.run(Vec::new(), stop.clone()));
        let (connection, ingress_stop) = (Arc::new(broker.clone()), stop.clone());
        tasks.spawn(async move { ingress.run(connection, ingress_stop).await.unwrap() });
        let server_stop = stop.clone();
        tasks.spawn(async move { server.run(api, server_stop).await.unwrap() });
        let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        let worker = WorkerId::new();
        let service = Self {
            ledger: sqlite,
            effects,
            progress,
            broker,
            stop,
            address,
            input,
            worker,
            fleet,
            client,
            tasks,
            _folder: folder,
        };
        service.workers_have(Some(Bytes::mib(1024)));
        service
    }

    /// The fleet becomes one worker with so much memory, or nobody.
    pub(super) fn workers_have(&self, memory: Option<Bytes>) {
        let worker = |memory| {
            let report = v1::LoadReport {
                worker_id: self.worker.to_string(),
                worker_name: "worker-1".to_owned(),
                fleet: "default".to_owned(),
                units: ["write", "copy", "sum"].map(str::to_owned).to_vec(),
                leases: [("acme", "acme's shard"), ("other", "somebody else's")]
                    .map(|(tenant, shard)| v1::LeaseReport {
                        run_id: RunId::new().to_string(),
                        shard_id: shard.to_owned(),
                        tenant: tenant.to_owned(),
                        request_type: format!("type-of-{tenant}"),
                        cpu_millis_now: 250,
                        ..Default::default()
                    })
                    .into(),
                ..Default::default()
            };
            Worker { report, capacity: ResourceVector::new(CpuMillis::cores(4), memory), heard: Instant::now() }
        };
        let workers: HashMap<_, _> = memory.map(|memory| (self.worker, worker(memory))).into_iter().collect();
        self.fleet.send_replace(Arc::new(FleetView { workers }));
    }

    /// Sweeps with this grace, for as long as the service lives. The fleet is what [`Self::reports`] says.
    pub(super) fn sweep(&mut self, grace: Duration) {
        let sweeper = Sweeper {
            ledger: Arc::clone(&self.ledger) as _,
            fleet: self.fleet.subscribe(),
            effects: self.effects.clone(),
            control: self.effects.control.clone(),
            broker: Arc::new(self.broker.clone()),
            grace,
        };
        self.tasks.spawn(sweeper.run(self.stop.clone()));
    }

    /// The worker reports that it has `leases` and nothing else.
    pub(super) fn reports(&self, leases: Vec<v1::LeaseReport>) {
        let report = v1::LoadReport {
            worker_id: self.worker.to_string(),
            fleet: "default".to_owned(),
            units: ["write", "copy", "sum"].map(str::to_owned).to_vec(),
            leases,
            ..Default::default()
        };
        let capacity = ResourceVector::new(CpuMillis::cores(4), Bytes::mib(1024));
        let worker = Worker { report, capacity, heard: Instant::now() };
        self.fleet.send_replace(Arc::new(FleetView { workers: [(self.worker, worker)].into() }));
    }

    pub(super) async fn ledger_is_empty(&self) -> bool {
        self.ledger.unplanned(1).await.unwrap().is_empty() && self.ledger.open_work().await.unwrap().ready.is_empty()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request with the token of the tenant `acme`.
    pub(super) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request_as(TOKEN, method, path)
    }

    pub(super) fn request_as(&self, token: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth(token)
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::GET, path)).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        answer(self.request(Method::POST, path).json(body)).await
    }

    /// Submits a request that must be accepted, and answers its id.
    pub(super) async fn submit(&self, body: &Value) -> String {
        let (status, accepted) = self.post("/v1/requests", body).await;
        assert_eq!(status, StatusCode::CREATED, "{accepted}");
        accepted["requestId"].as_str().unwrap().to_owned()
    }

    /// Submits a note: one shard.
    pub(super) async fn submit_note(&self) -> String {
        self.submit(&json!({ "requestType": "note" })).await
    }

    /// Submits a copy of the input: two shards, then one that depends on both.
    pub(super) async fn submit_copy(&self) -> String {
        self.submit(&json!({ "requestType": "copy", "input": { "directory": self.input } })).await
    }

    /// Asks again until the answer is as wanted.
    pub(super) async fn wait_for(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, value) = self.get(path).await;
            if wanted(&value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{path} stays {value}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until so many attempts are released, confirmed by the broker and not claimed.
    pub(super) async fn released(&self, count: usize) -> Vec<InFlight> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut released = self.ledger.open_work().await.unwrap().in_flight;
            released.retain(|attempt| attempt.confirmed && !attempt.claimed);
            if released.len() >= count {
                return released;
            }
            assert!(Instant::now() < deadline, "{} of {count} attempts are released", released.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) async fn tell(&self, events: Vec<RunEvent>) {
        tell(&*self.ledger, &self.effects, events).await;
    }

    /// The event of a run of this attempt.
    pub(super) fn event(&self, run: RunId, attempt: &InFlight, kind: EventKind) -> RunEvent {
        event(self.worker, run, attempt, kind)
    }

    /// Runs whatever is released, until nothing is left of the request.
    pub(super) async fn run_to_the_end(&self, request: &str) -> Value {
        let path = format!("/v1/requests/{request}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            run_released(&*self.ledger, &self.effects, self.worker).await;
            let (_, status) = self.get(&path).await;
            if status["finishedUnixMs"].is_string() {
                return status;
            }
            assert!(Instant::now() < deadline, "the request does not end: {status}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Runs whatever is released, for as long as the service lives.
    pub(super) fn run_everything(&mut self) {
        let (ledger, effects, worker, stop) =
            (Arc::clone(&self.ledger), self.effects.clone(), self.worker, self.stop.clone());
        self.tasks.spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(20))).await.is_some() {
                run_released(&*ledger, &effects, worker).await;
            }
        });
    }

    /// What workers hear on the control exchange from now on.
    pub(super) async fn control_messages(&self) -> Box<dyn Consumer> {
        self.broker.declare(&layout::control_listener("test.control")).await.unwrap();
        let options = ConsumeOptions { window: 10, exclusive: true, tag: "test".to_owned() };
        self.broker.consumer("test.control", options).await.unwrap()
    }
}

pub(super) async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(kind, "application/json", "{status}");
    (status, response.json().await.unwrap())
}

/// The next message of a consumer.
pub(super) async fn next_message(consumer: &mut Box<dyn Consumer>) -> forecastle_broker::Message {
    loop {
        match tokio::time::timeout(PATIENCE, consumer.next()).await.expect("a message comes") {
            Some(ConsumerEvent::Delivery(delivery)) => {
                let message = delivery.message.clone();
                delivery.ack().await;
                return message;
            }
            Some(ConsumerEvent::Interrupted) => {}
            None => panic!("the consumer was closed"),
        }
    }
}

fn event(worker: WorkerId, run: RunId, attempt: &InFlight, kind: EventKind) -> RunEvent {
    let at_ms = forecastle_frontend::clock::now_ms();
    RunEvent { run, shard: attempt.release.shard, attempt: attempt.release.attempt, worker, at_ms, kind }
}

async fn tell(ledger: &dyn Ledger, effects: &Effects, events: Vec<RunEvent>) {
    let changes = ledger.apply(events, forecastle_frontend::clock::now_ms()).await.unwrap();
    effects.spread(changes).await;
}

/// Everything that is released succeeds at once.
async fn run_released(ledger: &dyn Ledger, effects: &Effects, worker: WorkerId) {
    let in_flight = ledger.open_work().await.unwrap().in_flight;
    let events: Vec<_> = in_flight
        .iter()
        .map(|attempt| event(worker, RunId::new(), attempt, completed(Outcome::Succeeded, "")))
        .collect();
    if !events.is_empty() {
        tell(ledger, effects, events).await;
    }
}

pub(super) fn completed(outcome: Outcome, error: &str) -> EventKind {
    EventKind::Completed(Box::new(v1::Completed {
        outcome: outcome.into(),
        error: error.to_owned(),
        stage: "work".to_owned(),
        unit: "copy".to_owned(),
        output_uri: "file:///out/1".to_owned(),
        files: vec![v1::OutputFile { path: "a.txt".to_owned(), bytes: 5 }],
        log_tail: format!("a line of the log\n{error}"),
        usage: Some(v1::Usage { memory_bytes: 1 << 40, cpu_ms: 17, ..Default::default() }),
        ..Default::default()
    }))
}
