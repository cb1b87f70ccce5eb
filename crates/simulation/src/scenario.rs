//! What a seed does, and when.

use std::time::Duration;

use forecastle_protos::v1;
use rand::RngExt as _;

use crate::producer::{Order, TENANT};
use crate::weather::Weather;

/// One thing that happens. Workers are named by their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The producer submits an order.
    Submit(usize),
    /// Somebody cancels one.
    Cancel(usize),
    /// Something befalls the frontend.
    Frontend(Blow),
    /// Something befalls a worker.
    Worker(usize, Blow),
    /// A worker is asked to leave.
    DrainWorker(usize),
    /// The clock of the frontend jumps by so many milliseconds.
    JumpFrontend(i64),
    /// The clock of workers jumps by so many milliseconds.
    JumpWorkers(i64),
    /// The broker loses every connection, which come back at once.
    RestartBroker,
    /// The broker takes no messages.
    RaiseAlarm,
    /// It does again.
    EndAlarm,
    /// The ledger's disk is full.
    FillDisk,
    /// It has room again.
    FreeDisk,
    /// The warehouse is away.
    CloseWarehouse,
    /// It is back.
    OpenWarehouse,
    /// No more faults.
    CalmDown,
}

/// What befalls a role. All but the first befalls nobody if the role does not live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// A life begins, if there is none.
    Begin,
    /// It is killed.
    Kill,
    /// It will be killed so many steps later.
    Light(u32),
    /// Its link is cut.
    Cut,
    /// Its link is mended.
    Mend,
    /// It stands still.
    Pause,
    /// It goes on.
    Resume,
}

/// All of it.
#[derive(Debug)]
pub struct Scenario {
    /// How many workers there are.
    pub workers: usize,
    /// What is submitted.
    pub orders: Vec<Order>,
    /// What happens, each so long after the beginning; in no order.
    pub steps: Vec<(Duration, Step)>,
}

/// Folders of inputs: their names, and how many files each has.
pub const INPUTS: [(&str, usize); 3] = [("few", 2), ("some", 6), ("many", 14)];

/// The catalogue. `heavy` fills three quarters of a worker, so that it has to wait for a place; `gather` is tiny.
pub const CATALOGUE: &str = r#"
version = 1

[types.job]
input = "directory"

[[types.job.stages]]
name = "work"
units = ["work"]
over = "items"
shard = { target_bytes = "1B", max_items = 1 }

[[types.job.stages]]
name = "gather"
units = ["gather"]
over = "once"
depends_on = ["work"]

[types.single]
input = "none"
stages = [{ name = "work", units = ["heavy"], over = "once" }]

[units.work]
command = ["/bin/true"]
invoke = "once"
reserve = { cpu = "1", memory = "256MiB", duration = "3s" }
timeout = "1min"

[units.heavy]
command = ["/bin/true"]
invoke = "once"
reserve = { cpu = "3", memory = "1GiB", duration = "5s" }
timeout = "1min"

[units.gather]
task = "simulated.gather"
reserve = { cpu = "100m", memory = "16MiB", duration = "50ms" }
timeout = "1min"
"#;

impl Scenario {
    /// The scenario of the seed of this weather; inputs are below `input`.
    pub fn draw(weather: &Weather, input: &std::path::Path) -> Self {
        let lasts = weather.between(Duration::from_mins(1), Duration::from_mins(2));
        let mut random = weather.random();
        let random = &mut *random;
        let workers = random.random_range(2..=4);
        let orders: Vec<Order> = (0..random.random_range(8..=14)).map(|number| order(random, number, input)).collect();
        let mut steps = vec![(Duration::ZERO, Step::Frontend(Blow::Begin))];
        steps.extend((0..workers).map(|worker| (Duration::ZERO, Step::Worker(worker, Blow::Begin))));
        let at = |random: &mut rand::rngs::StdRng| lasts.mul_f64(random.random());
        for number in 0..orders.len() {
            let submitted = at(random);
            steps.push((submitted, Step::Submit(number)));
            if random.random_bool(0.1) {
                steps.push((submitted + Duration::from_secs(random.random_range(0..20)), Step::Cancel(number)));
            }
        }
        // Of each kind some, each with its end where it has one.
        let seconds = |random: &mut rand::rngs::StdRng, least: u64, most: u64| {
            Duration::from_millis(random.random_range(least * 1000..=most * 1000))
        };
        for _ in 0..random.random_range(0..=2) {
            steps.push((at(random), Step::Frontend(Blow::Kill)));
        }
        for _ in 0..random.random_range(0..=4) {
            steps.push((at(random), Step::Frontend(Blow::Light(random.random_range(1..60)))));
        }
        for _ in 0..random.random_range(0..=2) {
            steps.push((at(random), Step::Worker(random.random_range(0..workers), Blow::Kill)));
        }
        for _ in 0..random.random_range(0..=4) {
            steps.push((
                at(random),
                Step::Worker(random.random_range(0..workers), Blow::Light(random.random_range(1..40))),
            ));
        }
        for _ in 0..random.random_range(0..=2) {
            steps.push((at(random), Step::DrainWorker(random.random_range(0..workers))));
        }
        let mut with_end = |random: &mut rand::rngs::StdRng, begin: Step, end: Step, least: u64, most: u64| {
            let begins = at(random);
            steps.push((begins, begin));
            steps.push((begins + seconds(random, least, most), end));
        };
        for _ in 0..random.random_range(0..=1) {
            with_end(random, Step::Frontend(Blow::Cut), Step::Frontend(Blow::Mend), 1, 20);
            with_end(random, Step::Frontend(Blow::Pause), Step::Frontend(Blow::Resume), 6, 20);
        }
        for _ in 0..random.random_range(0..=2) {
            let worker = random.random_range(0..workers);
            with_end(random, Step::Worker(worker, Blow::Cut), Step::Worker(worker, Blow::Mend), 1, 20);
            let worker = random.random_range(0..workers);
            with_end(random, Step::Worker(worker, Blow::Pause), Step::Worker(worker, Blow::Resume), 6, 20);
        }
        for _ in 0..random.random_range(0..=1) {
            with_end(random, Step::RaiseAlarm, Step::EndAlarm, 1, 15);
            with_end(random, Step::FillDisk, Step::FreeDisk, 1, 15);
            with_end(random, Step::CloseWarehouse, Step::OpenWarehouse, 5, 60);
        }
        for _ in 0..random.random_range(0..=1) {
            steps.push((at(random), Step::RestartBroker));
        }
        let day = 24 * 3_600_000;
        for _ in 0..random.random_range(0..=2) {
            steps.push((at(random), Step::JumpFrontend(random.random_range(-day..=day))));
            steps.push((at(random), Step::JumpWorkers(random.random_range(-day..=day))));
        }
        steps.push((lasts + Duration::from_secs(20), Step::CalmDown));
        Self { workers, orders, steps }
    }
}

fn order(random: &mut rand::rngs::StdRng, number: usize, input: &std::path::Path) -> Order {
    let job = random.random_bool(0.7);
    let folder = INPUTS[random.random_range(0..INPUTS.len())].0;
    let priority = ["", "urgent", "standard", "batch"][random.random_range(0..4)];
    let directory = v1::input::Kind::Directory(input.join(folder).display().to_string());
    let body = v1::SubmitRequest {
        request_type: if job { "job" } else { "single" }.to_owned(),
        input: job.then_some(v1::Input { kind: Some(directory) }),
        idempotency_key: format!("order-{number}"),
        tenant: TENANT.to_owned(),
        sla: Some(v1::Sla { priority: priority.to_owned(), ..v1::Sla::default() }),
        ..v1::SubmitRequest::default()
    };
    Order::new(body, random.random_bool(0.5))
}
