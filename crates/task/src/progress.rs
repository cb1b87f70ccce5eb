//! How far a run is.

use tokio::sync::watch;

/// How far a run is: a fraction in [0, 1]. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Progress {
    fraction: watch::Sender<f64>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Nothing done yet.
    pub fn new() -> Self {
        Self { fraction: watch::Sender::new(0.0) }
    }

    /// Says how far the run is. Values outside [0, 1] are brought inside; NaN and steps back are ignored.
    pub fn report(&self, fraction: f64) {
        let fraction = fraction.clamp(0.0, 1.0);
        self.fraction.send_if_modified(|now| {
            let forward = fraction > *now;
            if forward {
                *now = fraction;
            }
            forward
        });
    }

    /// How far the run said it is.
    pub fn fraction(&self) -> f64 {
        *self.fraction.borrow()
    }

    /// Sees every change from now on; changes that follow each other fast may be seen as one.
    pub fn watch(&self) -> watch::Receiver<f64> {
        self.fraction.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_only_moves_forward_and_stays_within_its_bounds() {
        let progress = Progress::new();
        for (report, expected) in [(0.25, 0.25), (0.1, 0.25), (f64::NAN, 0.25), (-1.0, 0.25), (7.0, 1.0)] {
            progress.clone().report(report);
            assert!((progress.fraction() - expected).abs() < f64::EPSILON, "{report}");
        }
    }
}
