//! What is judged.

use crate::evaluation::run::Run;

/// Sizes runs and learns from those that have ended.
pub trait Sizer {
    /// The memory of the first attempt and of those that follow kills, in bytes, rising. What is above the preset counts
    /// as the preset; after the last one the preset is given. Of the run only its kind, its input and its preset may be
    /// looked at.
    fn ladder(&mut self, run: &Run) -> Vec<f64>;

    /// A run has ended with success, as it says.
    fn learn(&mut self, run: &Run);
}
