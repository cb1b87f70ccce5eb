//! Whether a program can do its work now, and what it waits for if not.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The gates of one program. Ready when every gate is set. Cheap to clone; clones share their gates.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    gates: Arc<Mutex<BTreeMap<String, bool>>>,
}

impl Readiness {
    /// Without gates, which is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// The gate of that name, closed if it is new. Names are for people: `broker`, `catalogue`.
    pub fn gate(&self, name: &str) -> Gate {
        self.locked().entry(name.to_owned()).or_insert(false);
        Gate { name: name.to_owned(), readiness: self.clone() }
    }

    /// True if every gate is set.
    pub fn is_ready(&self) -> bool {
        self.locked().values().all(|set| *set)
    }

    /// The gates that are not set, by name.
    pub fn waiting_for(&self) -> Vec<String> {
        self.locked().iter().filter(|(_, set)| !**set).map(|(name, _)| name.clone()).collect()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        // Every change is one assignment, so a panic elsewhere leaves nothing half done.
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thing that has to be there. It keeps its state when this handle is dropped.
#[derive(Clone)]
pub struct Gate {
    name: String,
    readiness: Readiness,
}

impl Gate {
    /// Says whether it is there.
    pub fn set(&self, ready: bool) {
        let before = self.readiness.locked().insert(self.name.clone(), ready);
        if before != Some(ready) {
            tracing::info!(gate = self.name, ready, "readiness changed");
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_only_when_every_gate_is_set() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (broker, ledger) = (readiness.gate("broker"), readiness.gate("ledger"));
        assert_eq!(readiness.waiting_for(), ["broker", "ledger"]);
        broker.set(true);
        assert_eq!(readiness.waiting_for(), ["ledger"]);
        ledger.set(true);
        assert!(readiness.is_ready());
        broker.set(false);
        assert!(!readiness.is_ready());
    }

    #[test]
    fn asking_for_a_gate_again_does_not_close_it() {
        let readiness = Readiness::new();
        readiness.gate("broker").set(true);
        let again = readiness.gate("broker");
        assert!(readiness.is_ready());
        again.set(false);
        assert_eq!(readiness.waiting_for(), ["broker"]);
    }
}
