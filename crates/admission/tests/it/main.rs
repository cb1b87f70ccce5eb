//! What always holds, over random sequences.

#![expect(clippy::unwrap_used, reason = "test code throughout, but the lint knows only functions that are tests")]

mod adjusting;
mod adjustment_gain;
mod choosing;
mod desk;
mod fleets;
mod guarantee;
mod pool_machine;
mod random;
