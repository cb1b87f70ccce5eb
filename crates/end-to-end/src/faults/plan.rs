//! The faults of a run, and when.

use std::fmt;
use std::time::Duration;

pub use forecastle_simulation::weather::Role;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// What can be made to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL at some time.
    Killed(Role),
    /// Aborted at a named point.
    KilledAtPoint(Role),
    /// SIGKILL for the process of a run.
    RunnerKilled,
    /// SIGKILL for RabbitMQ, which is started again.
    BrokerKilled,
    /// The link of its namespace is down for longer than the grace.
    LinkCut(Role),
    /// The disk under the ledger is full for a while.
    DiskFull,
    /// ClickHouse is stopped for a while.
    ClickHouseStopped,
    /// RabbitMQ raises its memory alarm for a while, and takes no messages.
    MemoryAlarm,
    /// SIGSTOP for longer than the grace.
    Paused(Role),
    /// Its clock jumps.
    ClockJumped(Role),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(role) => write!(f, "{role} killed (SIGKILL)"),
            Self::KilledAtPoint(role) => write!(f, "{role} killed at a named point"),
            Self::RunnerKilled => f.write_str("runner killed (SIGKILL)"),
            Self::BrokerKilled => f.write_str("RabbitMQ killed (SIGKILL)"),
            Self::LinkCut(role) => write!(f, "link of {role}'s namespace cut"),
            Self::DiskFull => f.write_str("disk of the ledger full"),
            Self::ClickHouseStopped => f.write_str("ClickHouse stopped"),
            Self::MemoryAlarm => f.write_str("RabbitMQ's memory alarm raised"),
            Self::Paused(role) => write!(f, "{role} stopped past its lease (SIGSTOP)"),
            Self::ClockJumped(role) => write!(f, "clock of {role} jumped (faketime)"),
        }
    }
}

/// All of them. Each run has one of these in turn, and others by chance.
pub const ALL: [Fault; 15] = [
    Fault::Killed(Role::Worker),
    Fault::KilledAtPoint(Role::Frontend),
    Fault::RunnerKilled,
    Fault::BrokerKilled,
    Fault::LinkCut(Role::Worker),
    Fault::DiskFull,
    Fault::ClickHouseStopped,
    Fault::MemoryAlarm,
    Fault::Paused(Role::Worker),
    Fault::ClockJumped(Role::Frontend),
    Fault::Killed(Role::Frontend),
    Fault::KilledAtPoint(Role::Worker),
    Fault::LinkCut(Role::Frontend),
    Fault::Paused(Role::Frontend),
    Fault::ClockJumped(Role::Worker),
];

/// A fault to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// What.
    pub fault: Fault,
    /// When, from the first submission.
    pub at: Duration,
    /// How long, for those that end.
    pub lasts: Duration,
    /// Which worker, where it is one.
    pub worker: usize,
    /// By how many seconds a clock jumps.
    pub jump: i64,
    /// Which of the role's named points, of as many as there are.
    pub point: usize,
}

/// A run to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// From 0; even runs are on RabbitMQ 3.10, odd ones on 4.3.
    pub number: u64,
    /// Its faults.
    pub faults: Vec<Planned>,
}

impl Plan {
    /// The plan of a run, which follows from its number and the seed.
    pub fn draw(number: u64, seed: u64, workers: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number));
        // Both brokers have every fault in turn.
        let turn = usize::try_from(number / 2).unwrap_or_default() % ALL.len();
        let mut kinds = vec![ALL[turn]];
        for _ in 0..random.random_range(1..=3) {
            if let Some(other) = ALL.choose(&mut random).filter(|other| !kinds.contains(other)) {
                kinds.push(*other);
            }
        }
        let faults = kinds.into_iter().map(|fault| planned(fault, workers, &mut random)).collect();
        Self { number, faults }
    }
}

fn planned(fault: Fault, workers: usize, random: &mut StdRng) -> Planned {
    let hour = 3600;
    Planned {
        fault,
        at: Duration::from_millis(random.random_range(200..5000)),
        lasts: Duration::from_millis(random.random_range(4000..7000)),
        worker: random.random_range(0..workers),
        jump: if random.random_bool(0.5) {
            random.random_range(60..24 * hour)
        } else {
            -random.random_range(60..24 * hour)
        },
        point: random.random_range(0..1000),
    }
}
