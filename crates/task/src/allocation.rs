//! What a run may use, as that changes while it runs.

use forecastle_resources::ResourceVector;
use tokio::sync::watch;

/// What a run may use, now and later. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Allocation(watch::Receiver<ResourceVector>);

impl Allocation {
    /// What it is now.
    pub fn now(&self) -> ResourceVector {
        self.0.borrow().clone()
    }

    /// Follows it: `borrow` is what it is now, `changed` waits for the next change and is an error once there will be
    /// none.
    pub fn watch(&self) -> watch::Receiver<ResourceVector> {
        let mut receiver = self.0.clone();
        // What it is now is no news.
        receiver.mark_unchanged();
        receiver
    }
}

impl From<watch::Receiver<ResourceVector>> for Allocation {
    fn from(receiver: watch::Receiver<ResourceVector>) -> Self {
        Self(receiver)
    }
}

impl From<ResourceVector> for Allocation {
    /// One that never changes.
    fn from(vector: ResourceVector) -> Self {
        Self(watch::Sender::new(vector).subscribe())
    }
}

impl Default for Allocation {
    /// Of nothing.
    fn default() -> Self {
        ResourceVector::ZERO.into()
    }
}
