//! The faults that are possible, the chance of each, and the count of those that happened.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forecastle_broker::Address;
use forecastle_protos::names;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A role is gone from one moment to the next, at some time.
    Killed(Role),
    /// A role is gone at a step: just before or after it changed or was told something.
    KilledAtStep(Role),
    /// A worker is asked to leave.
    WorkerDrained,
    /// A role's connection is lost for a while.
    LinkCut(Role),
    /// The broker loses every connection at once, and with them its exclusive queues.
    BrokerRestarted,
    /// A role does nothing for longer than its lease on being believed alive.
    Paused(Role),
    /// A role's wall clock jumps, back or ahead.
    ClockJumped(Role),
    /// The broker takes no messages for a while.
    MemoryAlarm,
    /// The ledger's disk is full for a while.
    DiskFull,
    /// The warehouse does not answer for a while.
    WarehouseAway,
    /// The warehouse has a batch, and its answer is lost.
    WarehouseAnswerLost,
    /// A message that the broker confirmed is gone.
    Lost(Cargo),
    /// A message arrives twice.
    Duplicated(Cargo),
    /// A message arrives late, and after others.
    Delayed(Cargo),
    /// The broker has a message, and its answer is lost.
    ConfirmLost,
    /// A run fails by itself.
    RunFailed,
}

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The frontend.
    Frontend,
    /// A worker.
    Worker,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cargo {
    /// A shard's attempt.
    Shard,
    /// Events of runs.
    Events,
    /// A worker's load report.
    Report,
    /// What the frontend tells workers.
    Control,
}

impl Cargo {
    /// What goes to `address`, unless it is between producers and the frontend: a request that the broker confirmed is
    /// its to keep.
    pub fn of(address: &Address) -> Option<Self> {
        match (&*address.exchange, &*address.routing_key) {
            (names::SHARDS, _) => Some(Self::Shard),
            (names::LOAD, _) => Some(Self::Report),
            (names::CONTROL, _) => Some(Self::Control),
            ("", queue) if queue.starts_with("forecastle.completions.") => Some(Self::Events),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frontend => "frontend",
            Self::Worker => "worker",
        })
    }
}

impl fmt::Display for Cargo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shard => "shard",
            Self::Events => "events",
            Self::Report => "load report",
            Self::Control => "control message",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(role) => write!(f, "{role} killed at a time"),
            Self::KilledAtStep(role) => write!(f, "{role} killed at a step"),
            Self::WorkerDrained => f.write_str("worker drained"),
            Self::LinkCut(role) => write!(f, "link of {role} cut"),
            Self::BrokerRestarted => f.write_str("broker restarted"),
            Self::Paused(role) => write!(f, "{role} paused past its lease"),
            Self::ClockJumped(role) => write!(f, "clock of {role} jumped"),
            Self::MemoryAlarm => f.write_str("broker's memory alarm"),
            Self::DiskFull => f.write_str("ledger's disk full"),
            Self::WarehouseAway => f.write_str("warehouse away"),
            Self::WarehouseAnswerLost => f.write_str("warehouse's answer lost"),
            Self::Lost(cargo) => write!(f, "{cargo} lost"),
            Self::Duplicated(cargo) => write!(f, "{cargo} duplicated"),
            Self::Delayed(cargo) => write!(f, "{cargo} delayed"),
            Self::ConfirmLost => f.write_str("confirm lost"),
            Self::RunFailed => f.write_str("run failed by itself"),
        }
    }
}

/// How many of each.
pub type Tally = BTreeMap<Fault, u64>;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Arrives,
    /// It does not, although it is confirmed.
    Lost,
    /// It does, twice.
    Duplicated,
    /// It does, so much later.
    Delayed(Duration),
    /// It does, and whoever sent it does not hear of that.
    ConfirmLost,
}

/// One seed's chances.
#[derive(Debug)]
pub struct Weather {
    random: Mutex<StdRng>,
    tally: Mutex<Tally>,
    calm: AtomicBool,
    disk_full: AtomicBool,
    alarm: watch::Sender<bool>,
    warehouse_away: AtomicBool,
}

impl Weather {
    /// The weather of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            tally: Mutex::default(),
            calm: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
            alarm: watch::Sender::new(false),
            warehouse_away: AtomicBool::new(false),
        }
    }

    /// The seed's random numbers.
    pub fn random(&self) -> MutexGuard<'_, StdRng> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more faults from now on.
    pub fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
        self.set_disk_full(false);
        self.set_warehouse_away(false);
        self.set_alarm(false);
    }

    /// Counts a fault.
    pub fn count(&self, fault: Fault) {
        tracing::info!(%fault, "FAULT");
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner).entry(fault).or_default() += 1;
    }

    /// Those that happened.
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True with this probability, unless it is calm; if so, the fault is counted.
    pub fn strikes(&self, probability: f64, fault: Fault) -> bool {
        let strikes = !self.calm.load(Ordering::Relaxed) && self.random().random_bool(probability);
        if strikes {
            self.count(fault);
        }
        strikes
    }

    /// What becomes of a message to `address`.
    pub fn fate(&self, address: &Address) -> Fate {
        let Some(cargo) = Cargo::of(address) else { return Fate::Arrives };
        // Reports come every second: most of what could be lost would be reports.
        let often = if cargo == Cargo::Report { 0.3 } else { 1.0 };
        if self.strikes(0.01 * often, Fault::Lost(cargo)) {
            Fate::Lost
        } else if self.strikes(0.02 * often, Fault::Duplicated(cargo)) {
            Fate::Duplicated
        } else if self.strikes(0.02 * often, Fault::Delayed(cargo)) {
            Fate::Delayed(self.between(Duration::from_millis(100), Duration::from_secs(8)))
        } else if self.strikes(0.02 * often, Fault::ConfirmLost) {
            Fate::ConfirmLost
        } else {
            Fate::Arrives
        }
    }

    /// A time in between.
    pub fn between(&self, least: Duration, most: Duration) -> Duration {
        least + most.saturating_sub(least).mul_f64(self.random().random())
    }

    /// How long a step to the broker or the disk takes.
    pub fn latency(&self) -> Duration {
        let slow = self.random().random_bool(0.02);
        self.between(
            Duration::from_micros(100),
            if slow { Duration::from_millis(200) } else { Duration::from_millis(2) },
        )
    }

    /// Sets whether the ledger's disk is full.
    pub fn set_disk_full(&self, full: bool) {
        self.disk_full.store(full, Ordering::Relaxed);
    }

    /// Whether the ledger's disk is full.
    pub fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Sets whether the broker takes no messages.
    pub fn set_alarm(&self, raised: bool) {
        self.alarm.send_replace(raised);
    }

    /// Waits until the broker takes messages.
    pub async fn no_alarm(&self) {
        // An error means that the world has ended.
        drop(self.alarm.subscribe().wait_for(|raised| !raised).await);
    }

    /// Sets whether the warehouse is away.
    pub fn set_warehouse_away(&self, away: bool) {
        self.warehouse_away.store(away, Ordering::Relaxed);
    }

    /// Whether the warehouse is away.
    pub fn is_warehouse_away(&self) -> bool {
        self.warehouse_away.load(Ordering::Relaxed)
    }
}
