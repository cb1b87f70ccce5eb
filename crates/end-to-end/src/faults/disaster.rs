//! One run: a system under faults, until all that was acknowledged has ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::inspection;
use super::means::{self, Clock, SmallDisk};
use super::plan::{Fault, Plan, Planned, Role};
use crate::host::Host;
use crate::program::Program;
use crate::stack::Stack;
use crate::system::{StartedWorker, Surroundings, System};

/// How many workers there are.
pub const WORKERS: usize = 2;

/// Requests of a run, and the time between two.
const REQUESTS: usize = 4;
const BETWEEN: Duration = Duration::from_millis(1200);

/// Items of each.
const ITEMS: usize = 8;

/// How long everything may take to end after the last fault.
const PATIENCE: Duration = Duration::from_secs(90);

/// How soon a supervisor starts again what died.
const RESTART: Duration = Duration::from_millis(700);

/// How long a drain may take.
const DRAIN: Duration = Duration::from_secs(40);

/// The pace of everything here.
const TICK: Duration = Duration::from_millis(50);

const CATALOGUE: &str = r#"
version = 1

[types.work]
input = "directory"

[[types.work.stages]]
name = "files"
units = ["sort"]
over = "items"
shard = { max_items = 1 }

[[types.work.stages]]
name = "manifest"
units = ["manifest"]
over = "once"
depends_on = ["files"]

[units.sort]
command = ["/usr/bin/perl", "-e", "select(undef, undef, undef, 0.5); open(F, $ARGV[0]) or die; print sort <F>", "--", "{input}"]
stdout = "{name}.sorted"
reserve = { cpu = "500m", memory = "32MiB", duration = "1s" }
retry = { errors = 6, lost = 8, timeouts = 4, maximum_attempts = 30 }

[units.manifest]
task = "forecastle.manifest"
reserve = { cpu = "100m", memory = "16MiB", duration = "1s" }
"#;

/// The settings of both roles: a dead connection is noticed soon.
const HEARTBEAT: &str = "broker.heartbeat_seconds=2";

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Faults that were really made.
    pub faults: BTreeMap<Fault, u64>,
    /// What does not hold; empty if all was survived.
    pub violations: Vec<String>,
    /// Runs of shards that the ledger recorded.
    pub runs: usize,
    /// Lives of workers.
    pub lives: usize,
    /// How long it took.
    pub took: Duration,
}

/// A role that is started again when it dies.
struct Place {
    host: Host,
    clock: Option<Clock>,
    /// `None` while it is dead.
    program: Option<Program>,
    /// When it is started again.
    restart: Option<Instant>,
    /// A named point for its first life.
    point: Option<String>,
}

impl Place {
    fn new(stack: &Stack, clock: Option<Clock>) -> anyhow::Result<Self> {
        let ports = [port(stack, "FORECASTLE_RABBITMQ_PORT")?, port(stack, "FORECASTLE_CLICKHOUSE_HTTP_PORT")?];
        let host = Host::new(&ports)?;
        Ok(Self { host, clock, program: None, restart: None, point: None })
    }

    /// Variables of its next life.
    fn environment(&mut self) -> Vec<(String, String)> {
        let point = self.point.take().map(|point| ("FORECASTLE_CRASH_AT".to_owned(), point));
        let clock = self.clock.iter().flat_map(Clock::environment);
        point.into_iter().chain(clock.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
    }

    fn kill(&mut self) -> anyhow::Result<bool> {
        let Some(program) = &mut self.program else { return Ok(false) };
        program.kill()?;
        Ok(true)
    }
}

fn port(stack: &Stack, variable: &str) -> anyhow::Result<u16> {
    Ok(stack.variable(variable)?.parse()?)
}

/// A request of the run's.
#[derive(Default)]
struct Order {
    due: Duration,
    /// Its id, once the API has said that it will not be lost.
    acknowledged: Option<String>,
    ended: Option<Value>,
}

struct Disaster {
    // Programs end before the system goes, and that before the disk.
    frontend: Place,
    workers: Vec<Place>,
    system: System,
    disk: SmallDisk,
    stack: Arc<Stack>,
    began: Instant,
    orders: Vec<Order>,
    /// Faults that begin, and then those that end.
    agenda: Vec<(Duration, Act)>,
    /// The last command of the stack, while it is under way.
    command: Option<JoinHandle<anyhow::Result<()>>>,
    faults: BTreeMap<Fault, u64>,
    crashes_seen: usize,
}

#[derive(Debug, Clone)]
enum Act {
    Begin(Planned),
    End(Planned),
}

/// Makes one run on this stack.
pub async fn run(plan: &Plan, stack: Arc<Stack>) -> anyhow::Result<Outcome> {
    let mut disaster = Disaster::prepare(plan, stack).await?;
    let began = Instant::now();
    let mut violations = disaster.go_on().await?;
    disaster.leave(&mut violations)?;
    let runs = inspection::records(&disaster.system, &mut violations).await?;
    let lives = inspection::machine(&disaster.system, &mut violations)?;
    if !violations.is_empty() {
        violations.push(disaster.last_words());
    }
    Ok(Outcome { faults: disaster.faults, violations, runs, lives, took: began.elapsed() })
}

impl Disaster {
    async fn prepare(plan: &Plan, stack: Arc<Stack>) -> anyhow::Result<Self> {
        let system = System::new(Arc::clone(&stack), CATALOGUE)?;
        for number in 0..ITEMS {
            std::fs::write(system.input().join(format!("{number}.txt")), format!("b {number}\na {number}\n"))?;
        }
        let disk = SmallDisk::mount(&system.data())?;
        let jumps = |role| plan.faults.iter().any(|planned| planned.fault == Fault::ClockJumped(role));
        let clock = |role, name: String| jumps(role).then(|| Clock::new(system.folder().join(name))).transpose();
        let mut frontend = Place::new(&stack, clock(Role::Frontend, "clock-frontend".to_owned())?)?;
        let mut workers = Vec::new();
        for number in 0..WORKERS {
            workers.push(Place::new(&stack, clock(Role::Worker, format!("clock-worker-{number}"))?)?);
        }
        let mut agenda = Vec::new();
        for planned in &plan.faults {
            match planned.fault {
                Fault::KilledAtPoint(Role::Frontend) => {
                    let points = forecastle_frontend::crash_points::ALL;
                    frontend.point = Some(points[planned.point % points.len()].to_owned());
                }
                Fault::KilledAtPoint(Role::Worker) => {
                    let points = forecastle_worker::crash_points::ALL;
                    workers[planned.worker].point = Some(points[planned.point % points.len()].to_owned());
                }
                _ => agenda.push((planned.at, Act::Begin(planned.clone()))),
            }
        }
        let orders = (0..REQUESTS)
            .map(|number| Order { due: BETWEEN * u32::try_from(number).unwrap_or_default(), ..Order::default() });
        let mut disaster = Self {
            frontend,
            workers,
            system,
            disk,
            stack,
            began: Instant::now(),
            orders: orders.collect(),
            agenda,
            command: None,
            faults: BTreeMap::new(),
            crashes_seen: 0,
        };
        disaster.start().await?;
        Ok(disaster)
    }

    /// Starts everything, and waits until it is ready.
    async fn start(&mut self) -> anyhow::Result<()> {
        self.start_frontend()?;
        self.system.frontend = self.frontend.program.take();
        let ready = self.system.frontend_ready().await;
        self.frontend.program = self.system.frontend.take();
        ready?;
        for number in 0..WORKERS {
            let mut started = self.start_worker(number)?;
            let ready = self.system.worker_ready(&mut started).await;
            self.workers[number].program = Some(started.program);
            ready?;
        }
        self.began = Instant::now();
        Ok(())
    }

    fn start_frontend(&mut self) -> anyhow::Result<()> {
        let environment = self.frontend.environment();
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        let host = Some(&self.frontend.host);
        let surroundings = Surroundings { host, environment: &environment, settings: &[HEARTBEAT] };
        self.frontend.program = Some(self.system.launch_frontend_in(surroundings)?);
        self.frontend.restart = None;
        Ok(())
    }

    fn start_worker(&mut self, number: usize) -> anyhow::Result<StartedWorker> {
        let environment = self.workers[number].environment();
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.workers[number].restart = None;
        let host = Some(&self.workers[number].host);
        let surroundings = Surroundings { host, environment: &environment, settings: &[HEARTBEAT] };
        self.system.launch_worker_in("cpu=1,memory=1GiB", surroundings)
    }

    /// Until every fault is over and everything has ended. Answers what does not hold.
    async fn go_on(&mut self) -> anyhow::Result<Vec<String>> {
        let mut calm_since = Instant::now();
        loop {
            self.act()?;
            self.supervise()?;
            self.ask().await;
            if let Some(done) = self.command.take_if(|command| command.is_finished()) {
                done.await.context("a command of the stack panicked")??;
            }
            let calm = self.agenda.is_empty() && self.command.is_none();
            if !calm {
                calm_since = Instant::now();
            } else if self.orders.iter().all(|order| order.ended.is_some()) && self.is_at_rest().await {
                return self.judge().await;
            } else if calm_since.elapsed() > PATIENCE {
                let mut violations = self.judge().await?;
                violations.push(format!("it has not come to rest within {PATIENCE:?} after the last fault"));
                return Ok(violations);
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Begins and ends faults whose time has come.
    fn act(&mut self) -> anyhow::Result<()> {
        let now = self.began.elapsed();
        let due: Vec<usize> = (0..self.agenda.len()).rev().filter(|place| self.agenda[*place].0 <= now).collect();
        for place in due {
            let (_, act) = self.agenda.remove(place);
            match act {
                Act::Begin(planned) => self.begin(planned, now)?,
                Act::End(planned) => self.end(&planned)?,
            }
        }
        Ok(())
    }

    fn place(&mut self, role: Role, worker: usize) -> &mut Place {
        match role {
            Role::Frontend => &mut self.frontend,
            Role::Worker => &mut self.workers[worker],
        }
    }

    fn begin(&mut self, planned: Planned, now: Duration) -> anyhow::Result<()> {
        let fault = planned.fault;
        let lasts = planned.lasts;
        let made = match fault {
            Fault::Killed(role) => self.place(role, planned.worker).kill()?,
            Fault::RunnerKilled => {
                let made = self.workers.iter().filter_map(|worker| worker.program.as_ref());
                let made = made.map(Program::pid).any(means::kill_runner);
                if !made && now < planned.at + lasts {
                    // Nothing runs at this moment.
                    self.agenda.push((now + TICK, Act::Begin(planned)));
                    return Ok(());
                }
                made
            }
            Fault::BrokerKilled => {
                self.command(|stack| {
                    stack.run(&["kill-rabbitmq"])?;
                    stack.run(&["start-rabbitmq"]).map(drop)
                });
                true
            }
            Fault::LinkCut(role) => self.place(role, planned.worker).host.cut().map(|()| true)?,
            Fault::DiskFull => self.disk.fill().map(|()| true)?,
            Fault::ClickHouseStopped => {
                self.command(|stack| stack.run(&["stop-clickhouse"]).map(drop));
                true
            }
            Fault::MemoryAlarm => {
                self.command(|stack| set_watermark(stack, &["absolute", "1"]));
                true
            }
            Fault::Paused(role) => {
                let place = self.place(role, planned.worker);
                place.program.as_ref().is_some_and(|program| program.pause().is_ok())
            }
            Fault::ClockJumped(role) => match &self.place(role, planned.worker).clock {
                Some(clock) => clock.jump(planned.jump).map(|()| true)?,
                None => false,
            },
            // Armed from the start.
            Fault::KilledAtPoint(_) => false,
        };
        if made {
            *self.faults.entry(fault).or_default() += 1;
            self.agenda.push((now + lasts, Act::End(planned)));
        }
        Ok(())
    }

    fn end(&mut self, planned: &Planned) -> anyhow::Result<()> {
        match planned.fault {
            Fault::LinkCut(role) => self.place(role, planned.worker).host.mend(),
            Fault::DiskFull => self.disk.free(),
            Fault::ClickHouseStopped => {
                self.command(|stack| stack.run(&["start-clickhouse"]).map(drop));
                Ok(())
            }
            Fault::MemoryAlarm => {
                self.command(|stack| set_watermark(stack, &["0.6"]));
                Ok(())
            }
            Fault::Paused(role) => {
                // It may have been killed meanwhile; another life of it does not mind.
                if let Some(program) = &self.place(role, planned.worker).program {
                    program.resume().ok();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Runs a command of the stack beside everything else. Commands come one after the other.
    fn command(&mut self, command: impl FnOnce(&Stack) -> anyhow::Result<()> + Send + 'static) {
        let (stack, before) = (Arc::clone(&self.stack), self.command.take());
        self.command = Some(tokio::spawn(async move {
            if let Some(before) = before {
                before.await??;
            }
            tokio::task::spawn_blocking(move || command(&stack)).await?
        }));
    }

    /// Starts again what has died, as a supervisor does.
    fn supervise(&mut self) -> anyhow::Result<()> {
        let crashes = std::fs::read_to_string(self.system.crash_log()).unwrap_or_default();
        for crash in crashes.lines().skip(self.crashes_seen) {
            let role = if crash.starts_with("frontend/") { Role::Frontend } else { Role::Worker };
            *self.faults.entry(Fault::KilledAtPoint(role)).or_default() += 1;
        }
        self.crashes_seen = crashes.lines().count();
        let now = Instant::now();
        for place in std::iter::once(&mut self.frontend).chain(&mut self.workers) {
            let Some(program) = &mut place.program else { continue };
            if program.ended()?.is_some() {
                place.program = None;
                place.restart = Some(now + RESTART);
            }
        }
        if self.frontend.restart.is_some_and(|at| at <= now) {
            self.start_frontend()?;
        }
        for number in 0..WORKERS {
            if self.workers[number].restart.is_some_and(|at| at <= now) {
                let started = self.start_worker(number)?;
                self.workers[number].program = Some(started.program);
            }
        }
        Ok(())
    }

    /// Submits what is due until it is acknowledged, and asks how it goes.
    async fn ask(&mut self) {
        let now = self.began.elapsed();
        for number in 0..self.orders.len() {
            if self.orders[number].due > now || self.orders[number].ended.is_some() {
                continue;
            }
            let second = Duration::from_secs(1);
            match self.orders[number].acknowledged.clone() {
                None => {
                    let submitted = tokio::time::timeout(second, self.system.submit("work", &key(number))).await;
                    if let Ok(Ok(request)) = submitted {
                        self.orders[number].acknowledged = Some(request);
                    }
                }
                Some(request) => {
                    let path = format!("/v1/requests/{request}");
                    let asked = tokio::time::timeout(second, self.system.get(&path)).await;
                    if let Ok(Ok(status)) = asked
                        && has_ended(&status)
                    {
                        self.orders[number].ended = Some(status);
                    }
                }
            }
        }
    }

    /// True if no live worker holds anything, and nobody has to be given up any more.
    async fn is_at_rest(&self) -> bool {
        let all_live = self.frontend.program.is_some() && self.workers.iter().all(|worker| worker.program.is_some());
        let Ok(fleet) = self.system.get("/v1/fleet").await else { return false };
        let Some(workers) = fleet["workers"].as_array() else { return false };
        let holds = |worker: &Value, what: &str| worker["report"][what].as_array().is_some_and(|held| !held.is_empty());
        let heard = workers.iter().filter(|worker| milliseconds(&worker["ageMs"]) < 3000).count();
        all_live
            && inspection::live_runs(&self.system).is_ok_and(|runs| runs == 0)
            && heard >= WORKERS
            && !workers.iter().any(|worker| holds(worker, "leases") || holds(worker, "offers"))
    }

    /// What the API has to say.
    async fn judge(&mut self) -> anyhow::Result<Vec<String>> {
        let mut violations = Vec::new();
        for (number, order) in self.orders.iter().enumerate() {
            let Some(request) = &order.acknowledged else {
                violations.push(format!("order {number} was never acknowledged"));
                continue;
            };
            match &order.ended {
                None => violations.push(format!("order {number} (request {request}) has not ended")),
                Some(status) if status["state"] == "REQUEST_STATE_SUCCEEDED" => {
                    violations.extend(inspection::manifest(&self.system, request, status).await?);
                }
                Some(status) => violations.push(format!("order {number} was meant to succeed: {status}")),
            }
        }
        for number in 0..self.orders.len() {
            let again = self.system.submit("work", &key(number)).await?;
            if self.orders[number].acknowledged.as_ref() != Some(&again) {
                violations.push(format!("order {number} was acknowledged and lost: it is {again} now"));
            }
        }
        Ok(violations)
    }

    /// Everybody leaves in good order.
    fn leave(&mut self, violations: &mut Vec<String>) -> anyhow::Result<()> {
        for place in self.workers.iter_mut().chain(std::iter::once(&mut self.frontend)) {
            let Some(mut program) = place.program.take() else { continue };
            let status = program.terminate(DRAIN)?;
            if !status.success() {
                violations.push(format!("a program left with {status}:\n{}", program.last_words()));
            }
        }
        Ok(())
    }

    /// The ends of all logs.
    fn last_words(&self) -> String {
        let mut words = String::new();
        for entry in std::fs::read_dir(self.system.folder()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let last = lines[lines.len().saturating_sub(25)..].join("\n    ");
                words.extend([&*path.to_string_lossy(), ":\n    ", &last, "\n  "]);
            }
        }
        words
    }
}

fn key(number: usize) -> String {
    format!("order-{number}")
}

fn has_ended(status: &Value) -> bool {
    ["REQUEST_STATE_SUCCEEDED", "REQUEST_STATE_FAILED", "REQUEST_STATE_CANCELLED"]
        .iter()
        .any(|state| status["state"] == *state)
}

/// Numbers of 64 bits are texts in JSON; zero is left out.
fn milliseconds(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

fn set_watermark(stack: &Stack, to: &[&str]) -> anyhow::Result<()> {
    let arguments = [&["rabbitmqctl", "-q", "set_vm_memory_high_watermark"], to].concat();
    stack.run(&arguments).map(drop)
}
