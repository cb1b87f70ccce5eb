//! The predicted start of a claim that does not fit now.

use forecastle_resources::Bytes;

use crate::lease::{Claim, LeaseId};
use crate::pool::Pool;
use crate::time::Time;

/// When a claim is predicted to fit, and what the pool would be then if nothing else were claimed until then.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) at: Time,
    pub(crate) pool: Pool,
}

impl Start {
    /// The earliest instant at which `claim` fits if leases end as expected (the *shadow time* of EASY backfill:
    /// Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995). `None` if it never fits.
    pub(crate) fn of(pool: &Pool, claim: &Claim, now: Time) -> Option<Self> {
        let mut ends: Vec<(Time, LeaseId)> = pool.leases().map(|lease| (lease.expected_end(now), lease.id)).collect();
        ends.sort_unstable();
        let mut start = Self { at: now, pool: pool.clone() };
        let mut ends = ends.into_iter().peekable();
        loop {
            // Everything that ends at the same instant ends before anything starts.
            while let Some((_, id)) = ends.next_if(|(end, _)| *end <= start.at && *end > now) {
                let _ = start.pool.release(id);
            }
            if start.pool.obstacle(claim).is_none() {
                return Some(start);
            }
            // What is kept for leases to grow is there again when they have ended.
            start.pool.keep_for_growth(Bytes::ZERO);
            let Some((end, id)) = ends.next() else {
                return start.pool.obstacle(claim).is_none().then_some(start);
            };
            let _ = start.pool.release(id);
            start.at = end;
        }
    }

    /// True if `claim` would still fit then beside `other`.
    pub(crate) fn has_room_beside(&self, claim: &Claim, other: &Claim) -> bool {
        let mut pool = self.pool.clone();
        match pool.try_acquire(other, self.at) {
            crate::pool::Acquisition::Acquired(_) => pool.obstacle(claim).is_none(),
            _ => false,
        }
    }
}
