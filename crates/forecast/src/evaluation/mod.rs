//! How well memory is sized, judged on recorded runs.
//!
//! # Map
//!
//! - [`run`]: [`Run`], one recorded run; and what is known of it before it starts.
//! - [`sizer`]: [`Sizer`], what is judged; [`forecaster_sizer`]: the forecasters of this crate as one.
//! - [`baselines`]: sizers from the literature, by their papers.
//! - [`protocol`]: in which order runs are sized and learnt: [`protocol::replay`], [`protocol::split`].
//! - [`score`]: [`Score`], what it cost.
//!
//! # What always holds
//!
//! A sizer sees a run's outcome only after its protocol lets it: no allocation depends on what had not ended.
//! Memory is in bytes, time in milliseconds, waste in bytes · milliseconds until it is shown (1 GB·h is 10⁹ bytes held
//! for 3.6 · 10⁶ ms).

pub mod baselines;
pub mod forecaster_sizer;
pub mod protocol;
pub mod run;
pub mod score;
pub mod sizer;

pub use forecaster_sizer::ForecasterSizer;
pub use run::Run;
pub use score::Score;
pub use sizer::Sizer;
