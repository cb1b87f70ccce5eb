//! The constants, chosen on recorded runs that are kept for that (`forecast-evaluate split`).

/// The constants of all units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertOptions {
    /// Runs that are remembered of a unit.
    pub window: usize,
    /// Sizes of inputs that are remembered of a unit, to know one that comes again.
    pub sizes: usize,
    /// The bandwidth of the smoothing, in standard deviations times n^(-1/5), n being the number of runs.
    pub bandwidth: f64,
    /// The least bandwidth, as a part of the need: as exact as memory repeats at best.
    pub least_bandwidth: f64,
    /// The weight of a need above everything seen, beside 1 for each run.
    pub unseen: f64,
    /// What a killed attempt costs beside its own run, in milliseconds of its memory: queueing, starting, delay.
    pub overhead: f64,
    /// And whatever it had, in milliseconds of what was declared: what depends on it waits.
    pub delay: f64,
    /// Within which part needs are taken to repeat on an input of exactly the same size, before that is known.
    pub again: f64,
    /// How much an expert's account keeps with each run.
    pub fading: f64,
    /// What the account of forecasts made counts beside hindsight, which counts 1.
    pub foresight: f64,
    /// The part of attempts that may be killed.
    pub objective: f64,
    /// By how much a kill raises the logarithm of the price of kills; what was no kill lowers it by the objective's part.
    pub answer: f64,
}

impl ExpertOptions {
    /// What a kill costs beside its run, of an attempt with so much memory.
    pub(super) fn kill(&self, memory: f64, declared: f64) -> f64 {
        memory * self.overhead + declared * self.delay
    }
}

impl Default for ExpertOptions {
    fn default() -> Self {
        Self {
            window: 300,
            sizes: 4096,
            bandwidth: 0.6,
            least_bandwidth: 0.001,
            unseen: 0.02,
            overhead: 120_000.0,
            delay: 20_000.0,
            again: 0.15,
            fading: 0.98,
            foresight: 0.3,
            objective: 0.01,
            answer: 0.5,
        }
    }
}
