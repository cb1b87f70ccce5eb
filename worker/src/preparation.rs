//! Everything that can be found wrong before the first connection, all of it at once.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forecastle_admission::Pool;
use forecastle_catalogue::Catalogue;
use forecastle_protos::names;
use forecastle_resources::{Bytes, ResourceVector};

use crate::enforcement::EnforcementOptions;
use crate::options::WorkerOptions;
use crate::runner::PreallocationOptions;

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongOptions(pub Vec<String>);

impl fmt::Display for WrongOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is wrong:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for WrongOptions {}

/// A configuration that was found sound, with what was read on the way.
#[derive(Debug, Clone)]
pub struct Preparation {
    /// The catalogue.
    pub catalogue: Arc<Catalogue>,
    /// The whole capacity.
    pub capacity: ResourceVector,
    /// The empty pool.
    pub pool: Pool,
}

impl Preparation {
    /// Checks `options`; `detected` is what the machine has of CPU and memory, and `scratch` what is free on the disk of
    /// the scratch folder, or why that is unknown.
    pub fn new(
        options: &WorkerOptions,
        detected: Result<ResourceVector, String>,
        scratch: Result<Bytes, String>,
    ) -> Result<Self, WrongOptions> {
        let mut problems = Vec::new();
        if options.name.is_empty() || options.name.len() > 64 {
            problems.push("name: it has 1 to 64 characters".to_owned());
        }
        if !names::is_valid_fleet(&options.fleet) {
            problems.push(format!("fleet: `{}` is not 1 to 64 of a-z, 0-9 and -", options.fleet));
        }
        if let Err(error) = options.broker.validate() {
            problems.push(format!("broker: {error}"));
        }
        check_times(options, &mut problems);
        options.adjustment.check(&mut problems);
        check_folders(options, &mut problems);
        let fewest = EnforcementOptions::FEWEST_PROCESSES;
        if options.enforcement.most_processes < fewest {
            problems.push(format!("enforcement.most_processes: it is at least {fewest}"));
        }
        let most = EnforcementOptions::MOST_HEADROOM;
        if options.enforcement.memory_headroom_percent > most {
            problems.push(format!("enforcement.memory_headroom_percent: it is at most {most}"));
        }
        let most = PreallocationOptions::MOST;
        if options.preallocation.most > most {
            problems.push(format!("preallocation.most: it is at most {most}"));
        }
        let catalogue = Catalogue::load(&options.catalogue.path)
            .map_err(|errors| problems.push(format!("catalogue {}: {errors}", options.catalogue.path.display())));
        let mut capacity = capacity(options, detected, &mut problems);
        if capacity.scratch == Bytes::ZERO {
            // A full disk is no mistake: shards that reserve none of it run all the same.
            match scratch {
                Ok(free) => capacity.scratch = free,
                Err(error) => problems.push(format!("capacity.scratch: it cannot be found out, so set it: {error}")),
            }
        }
        let pool = Pool::new(capacity.clone(), options.shares.shares(), options.shares.lending_horizon.0)
            // Without a capacity no share fits, which is no news.
            .map_err(|error| {
                if !capacity.is_zero() {
                    problems.push(format!("shares: {error}"));
                }
            });
        match (catalogue, pool) {
            (Ok(catalogue), Ok(pool)) if problems.is_empty() => {
                Ok(Self { catalogue: Arc::new(catalogue), capacity, pool })
            }
            _ => Err(WrongOptions(problems)),
        }
    }
}

fn check_times(options: &WorkerOptions, problems: &mut Vec<String>) {
    let hold = options.claiming.hold.0;
    if hold < Duration::from_millis(10) || hold > Duration::from_mins(1) {
        problems.push(format!("claiming.hold: {} is not between 10ms and 1min", options.claiming.hold));
    }
    if options.claiming.most_held == 0 {
        problems.push("claiming.most_held: it is at least 1, or nothing could ever be claimed later".to_owned());
    }
    let interval = options.report.interval.0;
    if interval < Duration::from_millis(100) || interval > Duration::from_mins(1) {
        problems.push(format!("report.interval: {} is not between 100ms and 1min", options.report.interval));
    }
    if options.runner.checkpoint_within.0 > Duration::from_mins(10) {
        let within = options.runner.checkpoint_within;
        problems.push(format!("runner.checkpoint_within: {within} is more than 10min"));
    }
    if options.drain.flush.0 < Duration::from_secs(1) {
        problems.push("drain.flush: less than a second would lose what runs have to say".to_owned());
    }
}

fn check_folders(options: &WorkerOptions, problems: &mut Vec<String>) {
    for (number, root) in options.input.allowed_roots.iter().enumerate() {
        let key = format!("input.allowed_roots[{number}]");
        if !root.is_absolute() {
            problems.push(format!("{key}: {} is not an absolute path", root.display()));
        } else if !root.is_dir() {
            problems.push(format!("{key}: {} is no folder", root.display()));
        }
    }
    for (key, root) in [("store.root", &options.store.root), ("scratch.root", &options.scratch.root)] {
        if root.as_os_str().is_empty() {
            problems.push(format!("{key}: it is empty"));
        } else if blocked_by_a_file(root) {
            problems.push(format!("{key}: {} cannot be a folder: a file is in the way", root.display()));
        }
    }
}

/// True if the nearest part of `path` that exists is no folder.
fn blocked_by_a_file(path: &Path) -> bool {
    path.ancestors().find(|part| part.exists()).is_some_and(|part| !part.is_dir())
}

/// What is configured, and what the machine has where nothing is.
fn capacity(
    options: &WorkerOptions,
    detected: Result<ResourceVector, String>,
    problems: &mut Vec<String>,
) -> ResourceVector {
    let mut capacity = options.capacity.clone();
    if capacity.cpu.0 > 0 && capacity.memory.0 > 0 {
        return capacity;
    }
    match detected {
        Ok(detected) => {
            capacity.cpu = if capacity.cpu.0 > 0 { capacity.cpu } else { detected.cpu };
            capacity.memory = if capacity.memory.0 > 0 { capacity.memory } else { detected.memory };
            for (value, name) in [(capacity.cpu.0, "cpu"), (capacity.memory.0, "memory")] {
                if value == 0 {
                    problems.push(format!("capacity.{name}: the machine does not say how much it has; set it"));
                }
            }
        }
        Err(error) => problems.push(format!("capacity: it cannot be found out, so set cpu and memory: {error}")),
    }
    capacity
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_broker::rabbitmq;
    use forecastle_catalogue::HumanDuration;
    use forecastle_resources::CpuMillis;

    const CATALOGUE: &str = "version = 1\n[units.nothing]\ncommand = [\"/bin/true\"]\n";

    fn sound(folder: &Path) -> WorkerOptions {
        let mut options = WorkerOptions { name: "one".to_owned(), ..WorkerOptions::default() };
        options.catalogue.path = folder.join("catalogue.toml");
        std::fs::write(&options.catalogue.path, CATALOGUE).unwrap();
        options.input.allowed_roots = vec![folder.to_owned()];
        options.store.root = folder.join("store");
        options.scratch.root = folder.join("scratch");
        options
    }

    fn machine() -> ResourceVector {
        ResourceVector::new(CpuMillis::cores(4), Bytes::gib(8))
    }

    const FREE: Result<Bytes, String> = Ok(Bytes::gib(100));

    #[test]
    fn what_is_not_configured_of_the_capacity_is_what_the_machine_has() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = sound(folder.path());
        let with_disk = |vector: ResourceVector| vector.with_scratch(Bytes::gib(100));
        assert_eq!(Preparation::new(&options, Ok(machine()), FREE).unwrap().capacity, with_disk(machine()));
        options.capacity.memory = Bytes::gib(1);
        let capacity = Preparation::new(&options, Ok(machine()), FREE).unwrap().capacity;
        assert_eq!(capacity, with_disk(ResourceVector::new(CpuMillis::cores(4), Bytes::gib(1))));
        options.capacity.cpu = CpuMillis(500);
        let capacity = Preparation::new(&options, Err("nobody knows".to_owned()), FREE).unwrap().capacity;
        assert_eq!(capacity, with_disk(ResourceVector::new(CpuMillis(500), Bytes::gib(1))));
        let unknown = Preparation::new(&sound(folder.path()), Err("nobody knows".to_owned()), FREE).unwrap_err();
        assert!(unknown.to_string().contains("nobody knows"), "{unknown}");
    }

    #[test]
    fn scratch_is_what_is_configured_or_what_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = sound(folder.path());
        let scratch = |options: &WorkerOptions, free| {
            Preparation::new(options, Ok(machine()), free).map(|preparation| preparation.capacity.scratch)
        };
        assert_eq!(scratch(&options, FREE), Ok(Bytes::gib(100)));
        assert_eq!(scratch(&options, Ok(Bytes::ZERO)), Ok(Bytes::ZERO), "a full disk");
        let WrongOptions(problems) = scratch(&options, Err("no such disk".to_owned())).unwrap_err();
        assert_eq!(problems, ["capacity.scratch: it cannot be found out, so set it: no such disk"]);
        options.shares.urgent.guaranteed.scratch = Bytes::gib(101);
        let WrongOptions(problems) = scratch(&options, FREE).unwrap_err();
        assert_eq!(problems, ["shares: the guaranteed shares of scratch are together more than the capacity"]);
        options.capacity.scratch = Bytes::gib(200);
        assert_eq!(scratch(&options, Err("no such disk".to_owned())), Ok(Bytes::gib(200)));
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = sound(folder.path());
        options.name.clear();
        options.fleet = "Upper Case".to_owned();
        options.broker = rabbitmq::Options::to("http://broker");
        options.claiming.hold = HumanDuration(Duration::ZERO);
        options.claiming.most_held = 0;
        options.report.interval = HumanDuration(Duration::from_hours(1));
        options.drain.flush = HumanDuration(Duration::ZERO);
        options.runner.checkpoint_within = HumanDuration(Duration::from_hours(1));
        options.enforcement.most_processes = 1;
        options.enforcement.memory_headroom_percent = 51;
        options.input.allowed_roots = vec!["relative".into(), folder.path().join("missing")];
        options.store.root = options.catalogue.path.join("below-a-file");
        options.shares.urgent.guaranteed = ResourceVector::new(CpuMillis::cores(100), Bytes::ZERO);
        options.catalogue.path = folder.path().join("other.toml");
        let WrongOptions(problems) = Preparation::new(&options, Ok(machine()), FREE).unwrap_err();
        for named in [
            "name:",
            "fleet:",
            "broker:",
            "claiming.hold:",
            "claiming.most_held:",
            "report.interval:",
            "drain.flush:",
            "runner.checkpoint_within:",
            "enforcement.most_processes:",
            "enforcement.memory_headroom_percent:",
            "input.allowed_roots[0]:",
            "input.allowed_roots[1]:",
            "store.root:",
            "shares:",
            "catalogue ",
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(named)), "{named} is not in {problems:#?}");
        }
        assert_eq!(problems.len(), 15, "{problems:#?}");
    }
}
