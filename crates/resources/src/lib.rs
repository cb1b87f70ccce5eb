//! The nouns of Forecastle: quantities with units, the resource vector, reservations, size classes and priorities.
//!
//! # Map
//!
//! - [`quantity`]: [`Bytes`], [`CpuMillis`], [`BytesPerSecond`], parsed from and printed as `64MiB`, `1500m`, `10MiB/s`.
//! - [`vector`]: [`ResourceVector`], what a pool holds and a lease takes; arithmetic that never wraps.
//! - [`reservation`]: [`Reservation`], a vector and how long it is expected to be held.
//! - [`class`]: [`SizeClass`], which queue a shard of that reservation travels in.
//! - [`priority`]: [`Priority`], urgent before standard before batch.
//!
//! # What always holds
//!
//! No operation here panics or wraps: additions saturate and subtractions are checked. Nothing here reads a clock,
//! the environment or a file.

pub mod class;
pub mod priority;
pub mod quantity;
pub mod reservation;
pub mod vector;

pub use class::{ReferenceWorker, SizeClass};
pub use priority::Priority;
pub use quantity::{Bytes, BytesPerSecond, CpuMillis, ParseQuantityError};
pub use reservation::Reservation;
pub use vector::{ParseVectorError, Resource, ResourceVector};
