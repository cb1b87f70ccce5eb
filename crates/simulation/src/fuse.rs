//! Fuses: a role is killed between any two of its steps.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Counts the steps of a role: whatever it asks of the broker or the ledger is one before and one after.
#[derive(Debug, Default)]
pub struct Fuse {
    left: Mutex<Option<u32>>,
    blown: Notify,
}

impl Fuse {
    /// The role will not live to see what follows its `steps`-th step from now.
    pub fn light(&self, steps: u32) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(steps);
    }

    /// A step. The last one has no end.
    pub async fn step(&self) {
        let last = {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *left {
                None => false,
                Some(0) => true,
                Some(left) => {
                    *left -= 1;
                    *left == 0
                }
            }
        };
        if last {
            self.blown.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the last step.
    pub async fn blown(&self) {
        self.blown.notified().await;
    }
}
