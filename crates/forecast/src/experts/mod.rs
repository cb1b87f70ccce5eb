//! Memory of the least expected waste: small experts on the size of the input, what they were off by, and the ladder of
//! allocations that follows from that.
//!
//! # Map
//!
//! - `history`: the last runs of a unit; `predictors`: the experts, each a guess of the need at a size.
//! - `repeats`: inputs that come again; `kills`: runs that were killed.
//! - `law`: needs that follow a line closely, and so tell of sizes that nobody has seen.
//! - `residuals`: what needs were of those guesses, as a smooth distribution.
//! - `fit`: that distribution as of the last time that somebody looked.
//! - `calibration`: the promise on kills.
//! - `plan`: the ladder, the first allocation and all that follow kills, by dynamic programming.
//! - [`mod@unit`]: [`UnitSizer`], all of them for one unit, and which expert is in force; [`options`].
//! - [`sized`]: what a unit is sized with, and what comes of it.
//! - [`target`]: what is not memory: the same guesses, and quantiles.
//! - [`strangers`]: units of which nothing is known yet.
//!
//! # What always holds
//!
//! An expert is judged by guesses that it made before it had seen the run. (Hindsight puts the present ladder above those
//! guesses, the accounts the ladder of then.) A ladder rises strictly, is finite and positive, and
//! no rung is above the cap.

mod calibration;
mod fit;
mod history;
mod kills;
mod law;
pub mod options;
mod plan;
mod predictors;
mod repeats;
mod residuals;
pub mod sized;
pub mod strangers;
pub mod target;
pub mod unit;

pub use options::ExpertOptions;
pub use sized::{Allowance, PROBABILITIES, Sized};
pub use strangers::Strangers;
pub use target::Target;
pub use unit::UnitSizer;
