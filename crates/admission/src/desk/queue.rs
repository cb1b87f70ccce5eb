//! One queue, as a worker's desk knows it.

use std::collections::VecDeque;
use std::time::Duration;

use super::pauses::{Chance, Pauses};
use crate::choice::Offer;
use crate::lease::Claim;
use crate::pool::Pool;
use crate::time::Time;

/// Claims that a queue is judged by.
const RECENT: usize = 8;

/// An offer that was handed back.
#[derive(Debug, Clone)]
struct Remembered<K> {
    key: K,
    offer: Offer,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It waits like an offer in hand.
    Waits,
    /// It could be claimed: the queue was opened for it, and room is kept.
    Expected,
    /// Only its age is of interest.
    Known,
}

/// One queue.
#[derive(Debug)]
pub(super) struct Queue<K> {
    /// The least window of its consumer.
    least: u16,
    /// The window of its consumer now.
    window: u16,
    /// Since when and with which pause, unless it is open.
    parked: Option<(Time, Duration)>,
    /// What was handed back when it was parked last.
    remembered: Vec<Remembered<K>>,
    /// Until when that may come, once the queue is open again.
    due: Option<Time>,
    pauses: Pauses,
    /// What it offered lately, the last one last.
    recent: VecDeque<Claim>,
}

impl<K: Copy + Eq> Queue<K> {
    /// A queue that is open with this window.
    pub(super) fn open(window: u16, pauses: Pauses) -> Self {
        let (remembered, recent) = (Vec::new(), VecDeque::new());
        Self { least: window, window, parked: None, remembered, due: None, pauses, recent }
    }

    pub(super) fn is_open(&self) -> bool {
        self.parked.is_none()
    }

    pub(super) fn window(&self) -> u16 {
        self.window
    }

    /// True if its window is never one.
    pub(super) fn is_deep(&self) -> bool {
        self.least > 1
    }

    /// It has offered something; answers since when that has been known here.
    pub(super) fn offered(&mut self, key: K, now: Time) -> Time {
        let known = self.remembered.iter().position(|known| known.key == key);
        if known.is_none() {
            // It has moved on.
            self.pauses.reset();
        }
        known.map_or(now, |place| self.remembered.swap_remove(place).offer.offered)
    }

    /// Notes what it offers.
    pub(super) fn learn(&mut self, claim: &Claim) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(claim.clone());
    }

    /// An offer of it was claimed.
    pub(super) fn claimed(&mut self) {
        self.pauses.reset();
    }

    /// These offers of it are handed back.
    pub(super) fn park(&mut self, offers: impl Iterator<Item = (K, Offer)>, now: Time, chance: &mut Chance) {
        self.remembered = offers.map(|(key, offer)| Remembered { key, offer, role: Role::Waits }).collect();
        self.due = None;
        self.parked = Some((now, self.pauses.next(chance)));
    }

    /// What waits without being in hand.
    pub(super) fn remembered(&self) -> impl Iterator<Item = (usize, &Offer)> {
        let waits = self.remembered.iter().enumerate().filter(|(_, known)| known.role == Role::Waits);
        waits.map(|(place, known)| (place, &known.offer))
    }

    /// What is on its way and for which room is kept.
    pub(super) fn expected(&self) -> impl Iterator<Item = &Claim> {
        self.remembered.iter().filter(|known| known.role == Role::Expected).map(|known| &known.offer.claim)
    }

    /// Expects by `due` what it offered, since that could be claimed now. True if it is to be opened for that.
    pub(super) fn expect(&mut self, place: usize, due: Time) -> bool {
        self.remembered[place].role = Role::Expected;
        self.due = Some(due);
        self.parked.take().is_some()
    }

    /// What it offered does not wait any more.
    pub(super) fn forget(&mut self, place: usize) {
        self.remembered[place].role = Role::Known;
    }

    /// Nothing that it offered will come.
    pub(super) fn forget_all(&mut self) {
        self.remembered.clear();
        self.due = None;
    }

    /// Forgets what did not come in time.
    pub(super) fn forget_overdue(&mut self, now: Time) {
        if self.due.is_some_and(|due| due <= now) {
            self.forget_all();
        }
    }

    /// Opens it if its pause is over; true if so. Others respect what it offered until that is there.
    pub(super) fn open_if_due(&mut self, pool: &Pool, now: Time, expected_within: Duration) -> bool {
        let due = self.opens_at(pool).is_some_and(|at| at <= now);
        if due {
            self.parked = None;
            self.due = Some(now.after(expected_within));
        }
        due
    }

    /// The window in which something is to be seen that fits, with this probability. If nothing fitted lately, one look
    /// tells whether that has changed.
    pub(super) fn browse(&mut self, pool: &Pool, confidence: f64, widest: u16) -> u16 {
        let fitting = self.fitting(pool);
        // 1 - (1 - fitting)^window = confidence
        let window = if fitting == 0.0 { 1.0 } else { ((1.0 - confidence).ln() / (1.0 - fitting).ln()).ceil() };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped; infinities saturate")]
        let window = window.clamp(1.0, f64::from(widest)) as u16;
        self.window = window.max(self.least);
        self.window
    }

    /// When its pause is over.
    fn opens_at(&self, pool: &Pool) -> Option<Time> {
        let (at, pause) = self.parked?;
        let (fitting, longest) = (self.fitting(pool), self.pauses.longest());
        Some(at.after(if fitting == 0.0 { longest } else { longest.min(pause.div_f64(fitting)) }))
    }

    /// The part of what it offered lately that fits now.
    fn fitting(&self, pool: &Pool) -> f64 {
        let fit = self.recent.iter().filter(|claim| pool.obstacle(claim).is_none()).count();
        fit as f64 / self.recent.len().max(1) as f64
    }

    /// When there is something to open or to forget.
    pub(super) fn next_change(&self, pool: &Pool) -> Option<Time> {
        [self.opens_at(pool), self.due].into_iter().flatten().min()
    }
}
