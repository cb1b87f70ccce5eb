//! One seed's system, from the first request to what must hold at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::{Broker as _, MemoryBroker};
use forecastle_frontend::catalogue_store::CatalogueStore;
use forecastle_frontend::ledger::Ledger as _;
use forecastle_protos::names;
use forecastle_protos::v1::RequestState;
use forecastle_resources::{Priority, ReferenceWorker, SizeClass};
use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::audit::{self, Evidence, Findings};
use crate::disk;
use crate::frontend_role::{self, Counter, FrontendLife};
use crate::fuse::Fuse;
use crate::labour::Record;
use crate::link::Link;
use crate::producer::{Order, Producer, TENANT};
use crate::scenario::{Blow, CATALOGUE, INPUTS, Scenario, Step};
use crate::warehouse::Tables;
use crate::weather::{Fault, Role, Tally, Weather};
use crate::worker_role::{self, CAPACITY, WorkerLife};

/// How long after the last fault everything may take to come to rest, in simulated time.
const PATIENCE: Duration = Duration::from_hours(2);

/// How often it is looked whether everything is at rest.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many looks in a row must find everything at rest.
const LOOKS: u32 = 15;

/// How soon a supervisor begins the next life of a role.
const RESTART: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(6));

/// What it is in the beginning: some day in 2026, in milliseconds since 1970.
const BEGINNING: u64 = 1_790_000_000_000;

/// How a seed is run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long after its last load report a worker is lost.
    pub grace: Duration,
    /// How long after the last fault everything may take to come to rest.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { grace: frontend_role::GRACE, patience: PATIENCE }
    }
}

/// What came of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// Which.
    pub seed: u64,
    /// The faults that happened.
    pub tally: Tally,
    /// What does not hold; empty if the seed was survived.
    pub violations: Vec<String>,
    /// How requests ended.
    pub requests: BTreeMap<RequestState, u64>,
    /// Shards that succeeded.
    pub shards: u64,
    /// Runs that ended.
    pub runs: u64,
    /// How long it took, in simulated time.
    pub lasted: Duration,
}

impl Outcome {
    /// True if everything held.
    pub fn is_survived(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seed, faults) = (self.seed, self.tally.values().sum::<u64>());
        if self.is_survived() {
            return write!(f, "seed {seed}: survived {faults} faults in {:.0?} of simulated time", self.lasted);
        }
        write!(f, "seed {seed}: {faults} faults were not survived")?;
        self.violations.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// Runs a seed on this thread.
pub fn run(seed: u64, settings: Settings) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let outcome = runtime.block_on(World::live(seed, settings));
    // What killed roles left waits for ever.
    runtime.shutdown_background();
    outcome
}

struct World {
    settings: Settings,
    weather: Arc<Weather>,
    broker: MemoryBroker,
    tables: Arc<Tables>,
    record: Arc<Record>,
    orders: Arc<Vec<Order>>,
    frontends: frontend_role::Premises,
    workers: worker_role::Premises,
    frontend: Option<FrontendLife>,
    places: Vec<Option<WorkerLife>>,
    door: watch::Sender<Option<Counter>>,
    producer: Arc<Producer>,
    submissions: JoinSet<()>,
    /// By when, and in the order in which they were put there.
    agenda: BTreeMap<(Instant, u64), Step>,
    entries: u64,
    calm: bool,
    violations: Vec<String>,
    began: Instant,
    /// Removed at the end.
    _folder: tempfile::TempDir,
}

enum Event {
    Due(Step),
    Frontend(Option<anyhow::Error>),
    Worker(usize, Option<anyhow::Result<()>>),
    Look,
}

impl World {
    async fn live(seed: u64, settings: Settings) -> anyhow::Result<Outcome> {
        let mut world = Self::new(seed, settings).await?;
        let findings = world.go_on().await?;
        let mut violations = world.violations;
        violations.extend(findings.violations);
        Ok(Outcome {
            seed,
            tally: world.weather.tally(),
            violations,
            requests: findings.requests,
            shards: findings.shards,
            runs: findings.runs,
            lasted: world.began.elapsed(),
        })
    }

    async fn new(seed: u64, settings: Settings) -> anyhow::Result<Self> {
        forecastle_frontend::clock::simulate(BEGINNING);
        forecastle_worker::clock::simulate(BEGINNING);
        let folder = disk::folder()?;
        let input = folder.path().join("input");
        write_inputs(&input)?;
        let catalogue = folder.path().join("catalogue.toml");
        std::fs::write(&catalogue, CATALOGUE)?;

        let weather = Arc::new(Weather::new(seed));
        let Scenario { workers, orders, steps } = Scenario::draw(&weather, &input);
        let (broker, orders) = (MemoryBroker::new(), Arc::new(orders));
        let tables = Arc::new(Tables::new(Arc::clone(&weather)));
        let record = Arc::<Record>::default();
        let frontends = frontend_role::Premises {
            folder: folder.path().join("ledger"),
            catalogue: Arc::new(CatalogueStore::load(&catalogue)?),
            input,
            reference_worker: ReferenceWorker(CAPACITY),
            broker: broker.clone(),
            tables: Arc::clone(&tables),
            weather: Arc::clone(&weather),
            grace: settings.grace,
        };
        let premises = worker_role::Premises {
            catalogue,
            folder: folder.path().to_owned(),
            broker: broker.clone(),
            record: Arc::clone(&record),
            weather: Arc::clone(&weather),
        };
        let producer = Arc::new(Producer::connect(&broker, Arc::clone(&orders)).await?);
        let began = Instant::now();
        let mut world = Self {
            settings,
            weather,
            broker,
            tables,
            record,
            orders,
            frontends,
            workers: premises,
            frontend: None,
            places: (0..workers).map(|_| None).collect(),
            door: watch::Sender::new(None),
            producer,
            submissions: JoinSet::new(),
            agenda: BTreeMap::new(),
            entries: 0,
            calm: false,
            violations: Vec::new(),
            began,
            _folder: folder,
        };
        for (after, step) in steps {
            world.enter(after, step);
        }
        Ok(world)
    }

    fn enter(&mut self, after: Duration, step: Step) {
        self.entries += 1;
        self.agenda.insert((Instant::now() + after, self.entries), step);
    }

    fn enter_soon(&mut self, step: Step) {
        let after = self.weather.between(RESTART.0, RESTART.1);
        self.enter(after, step);
    }

    /// Until everything is at rest, or was not within the patience.
    async fn go_on(&mut self) -> anyhow::Result<Findings> {
        let mut looks = 0;
        let mut give_up = None;
        loop {
            match self.next_event().await {
                Event::Due(step) => self.take(step)?,
                Event::Frontend(ended) => self.frontend_ended(ended),
                Event::Worker(place, ended) => self.worker_ended(place, ended),
                Event::Look if self.calm => {
                    let give_up = *give_up.get_or_insert_with(|| Instant::now() + self.settings.patience);
                    looks = if self.is_at_rest().await { looks + 1 } else { 0 };
                    if looks == LOOKS || Instant::now() > give_up {
                        return self.audit().await;
                    }
                }
                Event::Look => {}
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let due = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let frontend = async {
            match &mut self.frontend {
                Some(life) => life.ended().await,
                None => std::future::pending().await,
            }
        };
        let workers = self.places.iter_mut().enumerate().filter_map(|(place, life)| {
            let life = life.as_mut()?;
            Some(async move { (place, life.ended().await) }.boxed())
        });
        let workers: Vec<_> = workers.collect();
        let worker = async {
            if workers.is_empty() {
                std::future::pending::<()>().await;
            }
            futures::future::select_all(workers).await.0
        };
        let agenda = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            biased;
            ended = frontend => Event::Frontend(ended),
            (place, ended) = worker => Event::Worker(place, ended),
            () = agenda => match self.agenda.pop_first() {
                Some((_, step)) => return Event::Due(step),
                None => Event::Look,
            },
            () = tokio::time::sleep(LOOK_EVERY) => Event::Look,
        };
        event
    }

    fn frontend_ended(&mut self, ended: Option<anyhow::Error>) {
        match ended {
            None => self.weather.count(Fault::KilledAtStep(Role::Frontend)),
            // Its supervisor begins the next life.
            Some(error) => self.ended_by_itself("the frontend", &error),
        }
        self.end_frontend();
    }

    fn end_frontend(&mut self) {
        if let Some(life) = self.frontend.take() {
            life.kill();
        }
        self.enter_soon(Step::Frontend(Blow::Begin));
    }

    fn worker_ended(&mut self, place: usize, ended: Option<anyhow::Result<()>>) {
        match ended {
            None => self.weather.count(Fault::KilledAtStep(Role::Worker)),
            Some(Ok(())) => tracing::info!(place, "a worker has left"),
            Some(Err(error)) => self.ended_by_itself("a worker", &error),
        }
        self.end_worker(place);
    }

    /// Under faults a role may end by itself, as long as it does not panic; without, it may not.
    fn ended_by_itself(&mut self, role: &str, error: &anyhow::Error) {
        tracing::info!(error = format!("{error:#}"), "{role} ended by itself");
        if error.is::<tokio::task::JoinError>() {
            self.violations.push(format!("{role} panicked: {error:#}"));
        } else if self.calm {
            self.violations.push(format!("{role} ended by itself, without any fault: {error:#}"));
        }
    }

    fn end_worker(&mut self, place: usize) {
        if let Some(life) = self.places.get_mut(place).and_then(Option::take) {
            life.kill();
        }
        self.enter_soon(Step::Worker(place, Blow::Begin));
    }

    fn take(&mut self, step: Step) -> anyhow::Result<()> {
        tracing::info!(?step, at = ?self.began.elapsed(), "STEP");
        match step {
            Step::Submit(number) => {
                let (producer, orders) = (Arc::clone(&self.producer), Arc::clone(&self.orders));
                let mut door = self.door.subscribe();
                self.submissions.spawn(async move { producer.submit(&orders, number, &mut door).await });
            }
            Step::Cancel(number) => self.cancel(number),
            Step::Frontend(Blow::Begin) => {
                if self.frontend.is_none() {
                    self.frontend = Some(FrontendLife::begin(&self.frontends, &self.door)?);
                }
            }
            Step::Worker(place, Blow::Begin) => {
                if let Some(free @ None) = self.places.get_mut(place) {
                    *free = Some(WorkerLife::begin(&self.workers));
                }
            }
            Step::Frontend(blow) => {
                let reach = self.frontend.as_ref().map(|life| (life.link.clone(), Arc::clone(&life.fuse)));
                if self.befalls(Role::Frontend, reach, blow) {
                    self.end_frontend();
                }
            }
            Step::Worker(place, blow) => {
                let life = self.places.get(place).and_then(Option::as_ref);
                let reach = life.map(|life| (life.link.clone(), Arc::clone(&life.fuse)));
                if self.befalls(Role::Worker, reach, blow) {
                    self.end_worker(place);
                }
            }
            Step::DrainWorker(place) => {
                if let Some(life) = self.places.get(place).and_then(Option::as_ref) {
                    self.weather.count(Fault::WorkerDrained);
                    life.shutdown.request_drain();
                }
            }
            Step::RestartBroker => {
                self.weather.count(Fault::BrokerRestarted);
                let links = self.links();
                for link in &links {
                    link.cut();
                }
                for link in &links {
                    link.mend();
                }
            }
            Step::RaiseAlarm => {
                self.weather.count(Fault::MemoryAlarm);
                self.weather.set_alarm(true);
            }
            Step::EndAlarm => self.weather.set_alarm(false),
            Step::FillDisk => {
                self.weather.count(Fault::DiskFull);
                self.weather.set_disk_full(true);
            }
            Step::FreeDisk => self.weather.set_disk_full(false),
            Step::CloseWarehouse => {
                self.weather.count(Fault::WarehouseAway);
                self.weather.set_warehouse_away(true);
            }
            Step::OpenWarehouse => self.weather.set_warehouse_away(false),
            Step::JumpFrontend(by) => {
                self.weather.count(Fault::ClockJumped(Role::Frontend));
                let now = forecastle_frontend::clock::now_ms();
                forecastle_frontend::clock::simulate(now.saturating_add_signed(by));
            }
            Step::JumpWorkers(by) => {
                self.weather.count(Fault::ClockJumped(Role::Worker));
                let now = forecastle_worker::clock::now_unix_ms();
                forecastle_worker::clock::simulate(now.saturating_add_signed(by));
            }
            Step::CalmDown => self.calm_down(),
        }
        Ok(())
    }

    /// Something befalls a role that is reached by its link and its fuse, if it lives. True if it is killed.
    fn befalls(&self, role: Role, reach: Option<(Link, Arc<Fuse>)>, blow: Blow) -> bool {
        let Some((link, fuse)) = reach else { return false };
        match blow {
            Blow::Begin => {}
            Blow::Kill => self.weather.count(Fault::Killed(role)),
            Blow::Light(steps) => fuse.light(steps),
            Blow::Cut => {
                self.weather.count(Fault::LinkCut(role));
                link.cut();
            }
            Blow::Mend => link.mend(),
            Blow::Pause => {
                self.weather.count(Fault::Paused(role));
                link.pause();
            }
            Blow::Resume => link.resume(),
        }
        blow == Blow::Kill
    }

    fn links(&self) -> Vec<Link> {
        let frontend = self.frontend.iter().map(|life| life.link.clone());
        let workers = self.places.iter().flatten().map(|life| life.link.clone());
        frontend.chain(workers).collect()
    }

    /// Somebody cancels what was submitted, once there is an API to do it at.
    fn cancel(&mut self, number: usize) {
        let Some(order) = self.orders.get(number) else { return };
        let (body, mut door) = (order.body.clone(), self.door.subscribe());
        self.submissions.spawn(async move {
            let Ok(counter) = door.wait_for(Option::is_some).await.map(|counter| counter.clone()) else { return };
            let Some(counter) = counter else { return };
            let again = forecastle_frontend::intake::Submission { tenant: TENANT.to_owned(), body, reply: None };
            let cancelled = tokio::time::timeout(Duration::from_secs(5), async {
                let taken = counter.intake.submit(again).await.ok()?;
                counter.cancel(taken.request).await.ok()
            });
            // Cancelling is no promise that this test makes: it may be cut off with the frontend.
            drop(cancelled.await);
        });
    }

    fn calm_down(&mut self) {
        self.calm = true;
        self.weather.calm_down();
        for link in self.links() {
            link.resume();
            link.mend();
        }
    }

    /// True if nobody has anything left to do.
    async fn is_at_rest(&mut self) -> bool {
        while self.submissions.try_join_next().is_some() {}
        let Some(ledger) = self.frontend.as_ref().and_then(|life| life.disk().ledger()) else { return false };
        let (Ok(work), Ok(claims), Ok(unplanned)) =
            (audit::now(ledger.open_work()), audit::now(ledger.claims()), audit::now(ledger.unplanned(1)))
        else {
            return false;
        };
        let ledger_rests = work.in_flight.is_empty()
            && work.ready.is_empty()
            && work.backing_off.is_empty()
            && work.replies_owed.is_empty()
            && claims.is_empty()
            && unplanned.is_empty();
        let workers_rest = self.places.iter().all(|life| life.as_ref().is_some_and(|life| life.labour.running() == 0));
        let told = audit::now(ledger.lag(forecastle_frontend::sink::EVENTS_READER)).is_ok_and(|lag| lag == 0);
        ledger_rests
            && workers_rest
            && told
            && self.submissions.is_empty()
            && self.queues_with_messages().await.is_empty()
    }

    async fn queues_with_messages(&self) -> Vec<String> {
        let mut queues: Vec<String> = Priority::ALL
            .into_iter()
            .flat_map(|priority| SizeClass::ALL.map(|class| names::shard_queue("default", priority, class)))
            .collect();
        queues.extend([names::REQUESTS.to_owned(), names::RETURNED.to_owned()]);
        let ledger = self.frontend.as_ref().map(|life| names::completions_queue(life.disk().id()));
        queues.extend(ledger);
        let mut full = Vec::new();
        for queue in queues {
            if self.broker.depth(&queue).await.ok().flatten().is_some_and(|depth| depth.ready > 0) {
                full.push(queue);
            }
        }
        full
    }

    async fn audit(&mut self) -> anyhow::Result<Findings> {
        let Some(counter) = self.door.borrow().clone() else {
            self.violations.push("no frontend came up again".to_owned());
            return Ok(Findings::default());
        };
        let Some(ledger) = self.frontend.as_ref().and_then(|life| life.disk().ledger()) else {
            self.violations.push("no frontend holds the ledger".to_owned());
            return Ok(Findings::default());
        };
        let history = self.tables.runs();
        let evidence = Evidence {
            ledger: &ledger,
            counter: &counter,
            orders: &self.orders,
            record: &self.record,
            history: &history,
        };
        let mut findings = audit::audit(&evidence).await?;
        for queue in self.queues_with_messages().await {
            findings.violations.push(format!("queue {queue} still has messages"));
        }
        for worker in counter.fleet.borrow().workers.values() {
            let report = &worker.report;
            if worker.heard.elapsed() < self.settings.grace && !(report.leases.is_empty() && report.offers.is_empty()) {
                findings.violations.push(format!("worker {} still holds something: {report:?}", report.worker_id));
            }
        }
        for (place, life) in self.places.iter().enumerate() {
            match life {
                None => findings.violations.push(format!("no worker came up again in place {place}")),
                Some(life) if life.labour.running() > 0 => {
                    findings.violations.push(format!("the worker in place {place} still runs something"));
                }
                Some(_) => {}
            }
        }
        Ok(findings)
    }
}

fn write_inputs(input: &Path) -> std::io::Result<()> {
    for (name, files) in INPUTS {
        let folder = input.join(name);
        std::fs::create_dir_all(&folder)?;
        for file in 0..files {
            std::fs::write(folder.join(format!("{file}.txt")), "x")?;
        }
    }
    Ok(())
}
