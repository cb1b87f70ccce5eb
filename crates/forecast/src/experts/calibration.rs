//! The promise on kills: the price of a kill answers to how many there are.
//!
//! Adaptive conformal inference (Gibbs and Candès, "Adaptive conformal inference under distribution shift", NeurIPS 2021),
//! with the logarithm of a price in place of a quantile: after each run it rises by γ·(1 - α) if the first attempt would
//! have been killed and falls by γ·α if not, α being the part that may be. While more are killed than may be the price
//! rises without end, until a ladder begins where nothing is killed; so in the long run no more are, however the unit
//! changes. It never falls below the price that kills have by themselves: fewer kills than allowed are no reason to cause
//! some.

use super::options::ExpertOptions;

/// Where the price ends: e²⁰ buys any allocation there is.
const DEAREST: f64 = 20.0;

/// The promise on kills of one unit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Calibration {
    log_price: f64,
}

impl Calibration {
    /// By how much a kill is dearer than by itself.
    pub(super) fn price(self) -> f64 {
        self.log_price.exp()
    }

    /// A first attempt was killed, or would have been; or not.
    pub(super) fn judge(&mut self, killed: bool, options: &ExpertOptions) {
        let beyond = f64::from(u8::from(killed)) - options.objective;
        self.log_price = (self.log_price + options.answer * beyond).clamp(0.0, DEAREST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_dearer_the_more_there_are_and_as_they_were_once_the_promise_is_kept() {
        let (mut calibration, options) = (Calibration::default(), ExpertOptions::default());
        (0..5).for_each(|_| calibration.judge(true, &options));
        assert!(calibration.price() > 10.0, "{calibration:?}");
        // One in a hundred is what was promised: the price stays.
        let before = calibration.price();
        (0..300).for_each(|run| calibration.judge(run % 100 == 99, &options));
        assert!((calibration.price() / before - 1.0).abs() < 0.02, "{before} {calibration:?}");
        (0..600).for_each(|_| calibration.judge(false, &options));
        assert!((calibration.price() - 1.0).abs() < 1e-12);
    }
}
