//! Pure: what a shard will need, and the reservation and ladder chosen from it.
//!
//! # Map
//!
//! - [`features`]: [`Features`], what is known of a shard before it runs.
//! - [`declared`]: [`Declared`], what the unit's owner said, with the bounds that every reservation keeps; and
//!   [`DeclaredForecaster`], which believes it.
//! - [`forecast`]: [`Forecast`] (quantiles of need, a first reservation, a ladder), and the traits [`Forecaster`] and
//!   [`Expert`].
//! - [`ladder`]: the memory of the attempts that follow kills for memory.
//! - [`observation`]: [`Observation`], what a run used; the trait [`Learner`]; what is refused, and why.
//! - [`experts`]: memory of the least expected waste, by experts that compete.
//! - `profile`: what is known of one unit; [`ProfileForecaster`] keeps one per (request type, unit).
//! - [`demand`]: [`DemandForecaster`], how much work is expected to start.
//! - [`evaluation`]: how well memory is sized, judged on recorded runs, beside sizers from the literature.
//! - [`fallback`]: [`FallbackForecaster`], the first expert that knows something, else what was declared.
//!
//! # What always holds
//!
//! - A reservation is never below the declared minimum nor above the declared maximum. Should the two contradict each
//!   other ([`Declared::check`] names that), the maximum wins.
//! - A ladder begins with the memory of the reservation, rises strictly, and ends at the declared maximum; without one
//!   it has at least three more rungs.
//! - Quantiles never cross: a higher probability never has less of anything.
//! - No observation panics or poisons: what cannot be true is refused and counted.
//! - No clock, no randomness, no I/O: the same observations give the same forecasts.

pub mod declared;
pub mod demand;
pub mod evaluation;
pub mod experts;
pub mod fallback;
pub mod features;
pub mod forecast;
pub mod forecaster;
pub mod ladder;
pub mod observation;
mod profile;

pub use declared::{Declared, DeclaredError, DeclaredForecaster};
pub use demand::DemandForecaster;
pub use fallback::FallbackForecaster;
pub use features::{Features, ParameterValue, Source};
pub use forecast::{Expert, Forecast, Forecaster, Need, NeedQuantile};
pub use forecaster::{ProfileForecaster, ProfileOptions};
pub use observation::{Ending, Learner, Observation, Rejection};
