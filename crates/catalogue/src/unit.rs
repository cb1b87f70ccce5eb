//! Units: what one shard runs, with its reservation, clamps, limits and retry budgets.

use std::fmt;
use std::time::Duration;

use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, Reservation, ResourceVector};
use serde::{Deserialize, Serialize};

use crate::command::{Command, Invoke};
use crate::duration::HumanDuration;
use crate::error::Problem;
use crate::name::{self, UnitName};
use crate::request_type::{Over, RequestType};
use crate::section::{Problems, Section, join};

/// What one shard runs. Made only by reading a catalogue.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Unit {
    /// Its name.
    pub name: UnitName,
    /// For people.
    pub description: String,
    /// What runs.
    pub work: Work,
    /// Which items it takes.
    pub accepts: Accepts,
    /// The declared reservation, used until something better is known. Within `minimum` and `maximum`.
    pub reserve: Reservation,
    /// The least that is ever reserved.
    pub minimum: ResourceVector,
    /// The most that is ever reserved.
    pub maximum: Ceiling,
    /// The wall-clock limit of a run.
    pub timeout: Duration,
    /// How failures are met.
    pub retry: Retry,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// A program, in a process of its own.
    Command(Command),
    /// A typed task, inside the worker or in a process of its own.
    Task(TypedTask),
}

/// A typed task of the worker's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedTask {
    /// Its name.
    pub name: String,
    /// True if each run has a process of its own, with limits and a meter; else it runs inside the worker's.
    pub isolated: bool,
}

/// Which items a unit takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accepts {
    /// All of them.
    #[default]
    Any,
    /// Those that look like text: UTF-8 without NUL.
    Text,
}

impl Accepts {
    /// True if an item is taken; `text` says that it looks like text.
    pub const fn takes(self, text: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Text => text,
        }
    }
}

/// The most of each resource; `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ceiling {
    /// CPU.
    pub cpu: Option<CpuMillis>,
    /// Memory.
    pub memory: Option<Bytes>,
    /// I/O rate.
    pub io: Option<BytesPerSecond>,
    /// Scratch disk.
    pub scratch: Option<Bytes>,
}

/// How failures are met: a budget for each class of failure, and one for all of them together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// Further attempts after errors of the task.
    pub errors: u32,
    /// Further attempts after kills for memory, each with more of it.
    pub out_of_memory: u32,
    /// Further attempts after timeouts.
    pub timeouts: u32,
    /// Further attempts after lost workers; a shard that loses more is poison.
    pub lost: u32,
    /// The pause before the first further attempt after an error; later ones are longer.
    pub backoff: Duration,
    /// The most attempts of any kind; at least 1.
    pub maximum_attempts: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            errors: 2,
            out_of_memory: 4,
            timeouts: 1,
            lost: 5,
            backoff: Duration::from_secs(1),
            maximum_attempts: 12,
        }
    }
}

impl Unit {
    /// The limit of a run for which nothing is declared.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_hours(1);
    /// CPU for which nothing is declared.
    pub const DEFAULT_CPU: CpuMillis = CpuMillis::cores(1);
    /// Memory for which nothing is declared.
    pub const DEFAULT_MEMORY: Bytes = Bytes::mib(256);
    /// Expected duration for which nothing is declared.
    pub const DEFAULT_DURATION: Duration = Duration::from_mins(1);
    /// The least CPU, if no other minimum is declared.
    pub const LEAST_CPU: CpuMillis = CpuMillis(10);
    /// The least memory, if no other minimum is declared: what a small process needs to start.
    pub const LEAST_MEMORY: Bytes = Bytes::mib(4);

    /// `vector` within the declared minimum and maximum. Named resources are left as they are.
    #[must_use]
    pub fn clamp(&self, vector: &ResourceVector) -> ResourceVector {
        let mut clamped = vector.max(&self.minimum);
        clamped.cpu = self.maximum.cpu.map_or(clamped.cpu, |most| clamped.cpu.min(most));
        clamped.memory = self.maximum.memory.map_or(clamped.memory, |most| clamped.memory.min(most));
        clamped.io = self.maximum.io.map_or(clamped.io, |most| clamped.io.min(most));
        clamped.scratch = self.maximum.scratch.map_or(clamped.scratch, |most| clamped.scratch.min(most));
        clamped
    }

    /// True if it runs inside the worker's process, so that it may be of the class `tiny`.
    pub const fn is_in_process(&self) -> bool {
        matches!(self.work, Work::Task(TypedTask { isolated: false, .. }))
    }

    /// Its command, if it is one.
    pub const fn command(&self) -> Option<&Command> {
        match &self.work {
            Work::Command(command) => Some(command),
            Work::Task(_) => None,
        }
    }

    /// Reads a unit. `types` are all request types, sound or not. `None` only with a fault noted.
    pub(crate) fn read(name: &str, mut section: Section<'_>, types: &[&RequestType]) -> Option<Self> {
        let users: Vec<&RequestType> = types.iter().copied().filter(|user| user.uses(name)).collect();
        let description = section.take("description").unwrap_or_default();
        let work = read_work(&mut section, &users);
        if let Some(Work::Command(command)) = &work {
            refuse_items_where_there_are_none(name, &section, command, &users);
        }
        let accepts = section.take("accepts").unwrap_or_default();
        let timeout = section.positive_duration("timeout").unwrap_or(Self::DEFAULT_TIMEOUT);
        let (reserve, minimum, maximum) = read_sizes(&mut section, timeout);
        let retry = section.section("retry").map(read_retry).unwrap_or_default();
        let name = UnitName::new(name).unwrap_or_else(|error| {
            section.problems().push(section.path(), error);
            UnitName::unchecked(name)
        });
        section.finish();
        Some(Self { name, description, work: work?, accepts, reserve, minimum, maximum, timeout, retry })
    }
}

fn read_work(section: &mut Section<'_>, users: &[&RequestType]) -> Option<Work> {
    let (has_command, has_task) = (section.has("command"), section.has("task"));
    let path = section.path().to_owned();
    if has_command == has_task {
        let why =
            if has_command { "has both `command` and `task`; leave one out" } else { "needs a `command` or a `task`" };
        section.problems().push(path, Problem::Invalid(why.to_owned()));
    }
    if has_task && !has_command {
        for key in ["stdout", "invoke", "env", "successful_exit_codes", "retryable_exit_codes"] {
            if section.has(key) {
                section.invalid(key, "only a `command` can have it");
            }
        }
    }
    let isolated = section.take::<bool>("isolated");
    if isolated.is_some() && has_command {
        section.invalid("isolated", "only a `task` can have it: a command always has a process of its own");
    }
    let task = section.take::<String>("task");
    if let Some(task) = &task
        && !name::is_valid_task(task)
    {
        section.invalid("task", "is no task's name: use a-z, 0-9, `-` and `_`, in parts joined by dots");
    }
    if has_task && !has_command {
        // Taken only so that they are not called unknown as well.
        for key in ["command", "stdout", "invoke", "env", "successful_exit_codes", "retryable_exit_codes"] {
            section.raw(key);
        }
        let isolated = isolated.unwrap_or(false);
        return task.map(|name| Work::Task(TypedTask { name, isolated }));
    }
    Command::read(section, users).map(Work::Command)
}

/// A stage that runs once has no items: a command for each of them would never run.
fn refuse_items_where_there_are_none(name: &str, section: &Section<'_>, command: &Command, users: &[&RequestType]) {
    for user in users {
        for stage in user.stages.iter().filter(|stage| stage.over == Over::Once) {
            if !stage.units.iter().any(|unit| *unit == name) {
                continue;
            }
            let (stage, user) = (&stage.name, &user.name);
            let place = format!("stage `{stage}` of `{user}` runs it once, without items");
            if command.invoke == Invoke::Each {
                section.invalid("invoke", format!("{place}: it must be \"once\""));
            } else if command.reads_items() {
                section.invalid("command", format!("{place}: `{{inputs}}` would be empty"));
            }
        }
    }
}

fn read_retry(mut section: Section<'_>) -> Retry {
    let default = Retry::default();
    let retry = Retry {
        errors: section.take("errors").unwrap_or(default.errors),
        out_of_memory: section.take("out_of_memory").unwrap_or(default.out_of_memory),
        timeouts: section.take("timeouts").unwrap_or(default.timeouts),
        lost: section.take("lost").unwrap_or(default.lost),
        backoff: section.duration("backoff").unwrap_or(default.backoff),
        maximum_attempts: section.positive("maximum_attempts").unwrap_or(default.maximum_attempts),
    };
    section.finish();
    retry
}

/// Amounts of one table, as far as they are declared.
#[derive(Default)]
struct Amounts {
    cpu: Option<CpuMillis>,
    memory: Option<Bytes>,
    io: Option<BytesPerSecond>,
    scratch: Option<Bytes>,
}

impl Amounts {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            cpu: section.take("cpu"),
            memory: section.take("memory"),
            io: section.take("io"),
            scratch: section.take("scratch"),
        }
    }
}

fn read_sizes(section: &mut Section<'_>, timeout: Duration) -> (Reservation, ResourceVector, Ceiling) {
    let mut named = ResourceVector::ZERO;
    let mut duration = None;
    let declared = section.section("reserve").map(|mut reserve| {
        let amounts = Amounts::read(&mut reserve);
        duration = reserve.positive_duration("duration");
        if let Some(duration) = duration
            && duration > timeout
        {
            let (duration, timeout) = (HumanDuration(duration), HumanDuration(timeout));
            reserve.invalid("duration", format!("{duration} is more than the timeout {timeout}"));
        }
        if let Some(table) = reserve.section("named") {
            named = read_named(table);
        }
        reserve.finish();
        amounts
    });
    let mut bounds = |key| {
        section.section(key).map(|mut section| {
            let amounts = Amounts::read(&mut section);
            section.finish();
            amounts
        })
    };
    let (least, most) = (bounds("minimum").unwrap_or_default(), bounds("maximum").unwrap_or_default());
    let declared = declared.unwrap_or_default();
    let settle = Settle { path: section.path(), problems: section.problems() };
    // The wire holds CPU in 32 bits; ledgers and brokers hold the others in signed 64.
    let (cpu, least_cpu) = settle.resource(
        "cpu",
        [declared.cpu, least.cpu, most.cpu],
        [Unit::DEFAULT_CPU, Unit::LEAST_CPU, CpuMillis(u32::MAX.into())],
    );
    let (memory, least_memory) = settle.resource(
        "memory",
        [declared.memory, least.memory, most.memory],
        [Unit::DEFAULT_MEMORY, Unit::LEAST_MEMORY, Bytes(1 << 60)],
    );
    let (io, least_io) = settle.resource(
        "io",
        [declared.io, least.io, most.io],
        [BytesPerSecond::ZERO, BytesPerSecond::ZERO, BytesPerSecond(1 << 60)],
    );
    let (scratch, least_scratch) = settle.resource(
        "scratch",
        [declared.scratch, least.scratch, most.scratch],
        [Bytes::ZERO, Bytes::ZERO, Bytes(1 << 60)],
    );
    let vector = ResourceVector { cpu, memory, io, scratch, named: named.named };
    let duration = duration.unwrap_or(Unit::DEFAULT_DURATION).min(timeout);
    (
        Reservation::new(vector, duration),
        ResourceVector::new(least_cpu, least_memory).with_io(least_io).with_scratch(least_scratch),
        Ceiling { cpu: most.cpu, memory: most.memory, io: most.io, scratch: most.scratch },
    )
}

fn read_named(section: Section<'_>) -> ResourceVector {
    let (at, problems) = (section.path().to_owned(), section.problems());
    let mut vector = ResourceVector::ZERO;
    for (resource, amount) in section.rest::<u64>() {
        let fault = |why: &str| problems.push(join(&at, &resource), Problem::Invalid(why.to_owned()));
        if !name::is_valid(&resource) {
            fault("is no resource's name: use 1 to 64 of a-z, 0-9, `-` and `_`, a letter or digit first");
        }
        if amount == 0 {
            fault("must be more than zero");
        }
        vector = vector.with_named(resource, amount);
    }
    vector
}

/// Brings declared amounts and their bounds together.
struct Settle<'a> {
    path: &'a str,
    problems: &'a Problems,
}

impl Settle<'_> {
    /// From what is declared (reserve, minimum, maximum) and what holds otherwise (reserve, minimum, and the largest
    /// amount there is) to the reservation and its minimum. What is not declared gives way to what is.
    fn resource<Q: Copy + Ord + Default + fmt::Display>(
        &self,
        resource: &str,
        declared: [Option<Q>; 3],
        otherwise: [Q; 3],
    ) -> (Q, Q) {
        let fault = |table: &str, why: String| {
            self.problems.push(format!("{}.{table}.{resource}", self.path), Problem::Invalid(why));
        };
        let [reserve, least, most] = declared;
        let [default, default_least, largest] = otherwise;
        let zero_is_sound = default == Q::default();
        for (table, amount) in [("reserve", reserve), ("minimum", least), ("maximum", most)] {
            match amount {
                Some(amount) if amount > largest => fault(table, format!("{amount} is more than {largest}")),
                Some(amount) if amount == Q::default() && !zero_is_sound => {
                    fault(table, "must be more than zero".to_owned());
                }
                _ => {}
            }
        }
        if let (Some(least), Some(most)) = (least, most)
            && least > most
        {
            fault("minimum", format!("{least} is more than the maximum {most}"));
        } else if let Some(reserve) = reserve {
            match (least, most) {
                (Some(least), _) if reserve < least => {
                    fault("reserve", format!("{reserve} is less than the minimum {least}"));
                }
                (_, Some(most)) if reserve > most => {
                    fault("reserve", format!("{reserve} is more than the maximum {most}"));
                }
                _ => {}
            }
        }
        let most = most.unwrap_or(largest);
        let least = least.unwrap_or_else(|| default_least.min(reserve.unwrap_or(default_least)).min(most));
        (reserve.unwrap_or_else(|| default.max(least).min(most)), least)
    }
}
