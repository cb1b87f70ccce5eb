//! The last runs of a unit.

use std::collections::VecDeque;

/// One run, with the logarithms that the experts use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) size: f64,
    /// ln(1 + size).
    pub(super) log_size: f64,
    pub(super) need: f64,
    pub(super) log_need: f64,
}

impl Seen {
    pub(super) fn new(size: f64, need: f64) -> Self {
        Self { size, log_size: size.ln_1p(), need, log_need: need.ln() }
    }
}

/// The last runs, with what summaries of them cost little to keep.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    seen: VecDeque<Seen>,
}

impl History {
    pub(super) fn push(&mut self, seen: Seen, window: usize) {
        push(&mut self.seen, seen, window);
    }

    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// The oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Seen> + Clone {
        self.seen.iter()
    }

    /// The largest of something; zero of nothing.
    pub(super) fn largest(&self, of: impl Fn(&Seen) -> f64) -> f64 {
        self.iter().map(of).fold(0.0, f64::max)
    }

    pub(super) fn smallest(&self, of: impl Fn(&Seen) -> f64) -> f64 {
        self.iter().map(of).fold(f64::INFINITY, f64::min)
    }

    pub(super) fn mean(&self, of: impl Fn(&Seen) -> f64) -> f64 {
        self.iter().map(of).sum::<f64>() / self.len().max(1) as f64
    }
}

/// Adds the newest; the oldest go, so that at most `window` are left, and at least that one.
pub(super) fn push<T>(ring: &mut VecDeque<T>, newest: T, window: usize) {
    while ring.len() >= window.max(1) {
        ring.pop_front();
    }
    ring.push_back(newest);
}
