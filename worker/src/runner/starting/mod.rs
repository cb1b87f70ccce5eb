//! Where processes of runs begin: in a cage of the right size, at once or ahead of the work.
//!
//! # Map
//!
//! - `slot`: a cage with what waits in it for a run: a launcher, or the process of a task.
//! - `starter`: makes them.
//! - `warm_slots`: those that are kept ready for the work that is expected; [`options`].
//!
//! # What always holds
//!
//! A slot serves one run. A run that finds none ready has one made, the same way: warm and cold differ in nothing but
//! when the work was done.

pub mod options;
pub(crate) mod slot;
pub(crate) mod starter;
pub(crate) mod warm_slots;

pub use options::PreallocationOptions;
pub(crate) use slot::{Kind, Slot, TaskProcess, Waiting};
pub(crate) use starter::Starter;
pub(crate) use warm_slots::{ExpectedUnit, WarmSlots};
