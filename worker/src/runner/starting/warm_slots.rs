//! Slots that are kept ready for the work that is expected.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forecastle_admission::preallocation::{self, Expectation};
use forecastle_catalogue::UnitName;
use metrics::{counter, gauge};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::enforcement::Limits;
use crate::metric_definitions::{STARTS, WARM_SLOTS};
use crate::runner::starting::slot::{Kind, Slot};
use crate::runner::starting::starter::{StartError, Starter};

/// How long nothing is made ready after that failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(30);

/// How long what was taken is not made again: the run that took it, and others that start with it, go first.
const PAUSE_AFTER_START: Duration = Duration::from_millis(50);

/// How often what waits is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs of one unit that are expected to start here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExpectedUnit {
    pub(crate) unit: UnitName,
    pub(crate) kind: Kind,
    pub(crate) limits: Limits,
    pub(crate) expectation: Expectation,
}

/// Slots that are kept ready. Dropping it ends them all.
#[derive(Debug)]
pub(crate) struct WarmSlots {
    shared: Arc<Shared>,
    /// Makes and retires them.
    keeper: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    starter: Starter,
    most: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Ready>,
    targets: BTreeMap<UnitName, Target>,
    /// What was expected counts until then.
    until: Option<Instant>,
    /// Nothing is made before this.
    not_before: Option<Instant>,
    is_closed: bool,
}

#[derive(Debug)]
struct Ready {
    unit: UnitName,
    kind: Kind,
    slot: Slot,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Target {
    kind: Kind,
    limits: Limits,
    count: usize,
}

impl WarmSlots {
    /// None ready yet. `most` is the most that ever are.
    pub(crate) fn new(starter: Starter, most: usize) -> Self {
        let shared = Shared { starter, most, state: Mutex::default(), changed: Notify::new() };
        Self { shared: Arc::new(shared), keeper: Mutex::default() }
    }

    /// What is expected for so long, instead of what was expected before. The first call starts the keeper.
    pub(crate) fn expect(&self, expected: Vec<ExpectedUnit>, for_so_long: Duration) {
        if self.shared.most == 0 {
            return;
        }
        let expectations: Vec<_> = expected.iter().map(|expected| expected.expectation).collect();
        let counts = preallocation::plan(&expectations, self.shared.most);
        let targets = expected
            .into_iter()
            .zip(counts)
            .map(|(expected, count)| (expected.unit, Target { kind: expected.kind, limits: expected.limits, count }));
        {
            let mut state = self.shared.lock();
            if state.is_closed {
                return;
            }
            state.targets = targets.filter(|(_, target)| target.count > 0).collect();
            state.until = Some(Instant::now() + for_so_long);
        }
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.get_or_insert_with(|| AbortOnDropHandle::new(tokio::spawn(keep(Arc::clone(&self.shared)))));
        self.shared.changed.notify_one();
    }

    /// A slot for a run of this unit: one that is ready, or one that is made now; `name` is that of its cage then.
    pub(crate) async fn start(
        &self,
        name: String,
        unit: &UnitName,
        kind: Kind,
        limits: Limits,
    ) -> Result<Slot, StartError> {
        while let Some(slot) = self.shared.take(unit, kind) {
            let taken = tokio::task::spawn_blocking(move || slot.taken_by(&limits)).await;
            if let Ok(Some(slot)) = taken {
                counter!(STARTS, "kind" => kind.as_str(), "start" => "warm").increment(1);
                return Ok(slot);
            }
        }
        counter!(STARTS, "kind" => kind.as_str(), "start" => "cold").increment(1);
        self.shared.starter.start(name, kind, limits).await
    }

    /// How many are ready now.
    pub(crate) fn ready(&self) -> usize {
        self.shared.lock().slots.len()
    }

    /// Ends all that wait; no more are made.
    pub(crate) async fn close(&self) {
        self.shared.lock().is_closed = true;
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            keeper.abort();
            // One that was being made is dropped with it.
            let _ = keeper.await;
        }
        let slots = std::mem::take(&mut self.shared.lock().slots);
        for ready in slots {
            ready.slot.dismantle().await;
        }
        gauge!(WARM_SLOTS).set(0.0);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that was made for the unit; else one of the same kind, whose cage only has another size.
    fn take(&self, unit: &UnitName, kind: Kind) -> Option<Slot> {
        let mut state = self.lock();
        let fits = |ready: &Ready| ready.kind == kind;
        let place = state
            .slots
            .iter()
            .position(|ready| fits(ready) && ready.unit == *unit)
            .or_else(|| state.slots.iter().position(fits))?;
        let slot = state.slots.swap_remove(place).slot;
        gauge!(WARM_SLOTS).set(state.slots.len() as f64);
        let pause = Instant::now() + PAUSE_AFTER_START;
        state.not_before = Some(state.not_before.map_or(pause, |time| time.max(pause)));
        self.changed.notify_one();
        Some(slot)
    }
}

impl State {
    /// Takes out what is not wanted: of other units or sizes of pools, too many, too late, or gone.
    fn retire(&mut self, now: Instant) -> Vec<Ready> {
        if self.until.is_some_and(|until| now >= until) {
            self.targets.clear();
        }
        let mut left = self.targets.clone();
        let (keep, retired) = std::mem::take(&mut self.slots).into_iter().partition(|ready: &Ready| {
            let target = left.get_mut(&ready.unit).filter(|target| target.kind == ready.kind && target.count > 0);
            target.map(|target| target.count -= 1).is_some()
        });
        self.slots = keep;
        retired
    }

    /// What is to be made next: of the unit that misses the most of what it should have.
    fn next(&self, now: Instant) -> Option<(UnitName, Target)> {
        if self.not_before.is_some_and(|time| now < time) {
            return None;
        }
        let missing = |unit: &UnitName, target: &Target| {
            target.count.saturating_sub(self.slots.iter().filter(|ready| ready.unit == *unit).count())
        };
        let (unit, target) = self.targets.iter().max_by_key(|(unit, target)| missing(unit, target))?;
        (missing(unit, target) > 0).then(|| (unit.clone(), *target))
    }
}

/// Makes what is missing, one after the other, and ends what is not wanted any more.
async fn keep(shared: Arc<Shared>) {
    loop {
        let (retired, next, look_at) = {
            let mut state = shared.lock();
            let now = Instant::now();
            state.slots.retain_mut(|ready| ready.slot.is_ready());
            let retired = state.retire(now);
            gauge!(WARM_SLOTS).set(state.slots.len() as f64);
            let look_at = now + LOOK_EVERY;
            (retired, state.next(now), state.not_before.filter(|time| *time > now).map_or(look_at, |t| t.min(look_at)))
        };
        for ready in retired {
            ready.slot.dismantle().await;
        }
        let Some((unit, target)) = next else {
            let _ = tokio::time::timeout_at(look_at, shared.changed.notified()).await;
            continue;
        };
        let name = format!("warm-{}", Uuid::now_v7());
        match shared.starter.start(name, target.kind, target.limits).await {
            Ok(slot) => shared.lock().slots.push(Ready { unit, kind: target.kind, slot }),
            Err(error) => {
                tracing::warn!(%unit, %error, "nothing can be made ready for a unit; its runs start as they come");
                shared.lock().not_before = Some(Instant::now() + PAUSE_AFTER_FAILURE);
            }
        }
    }
}
