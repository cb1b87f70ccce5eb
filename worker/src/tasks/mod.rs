//! The tasks that come with Forecastle.
//!
//! - [`noop`]: [`Noop`], `forecastle.noop`.
//! - [`manifest`]: [`Manifest`], `forecastle.manifest`.

pub mod manifest;
pub mod noop;

use forecastle_task::{NameTaken, Registry};

pub use manifest::Manifest;
pub use noop::Noop;

/// Adds them all to a registry.
pub fn register(registry: &mut Registry) -> Result<(), NameTaken> {
    registry.register(Noop)?;
    registry.register(Manifest)
}
