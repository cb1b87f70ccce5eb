//! Whole systems under faults, in simulated time.
//!
//! A [`world`] is one seed's system: the frontend's and the workers' own services, over the broker in memory, with
//! ledgers in real files and a clock that jumps to whatever happens next, so that a quarter of an hour passes in a
//! second. Nothing of what is tested is copied here: what stands in for something is what lies around the services.
//!
//! # Map
//!
//! - [`world`]: one seed, from the first request to the [`audit`] of what must hold at the end.
//! - [`scenario`]: what a seed does, and when.
//! - [`weather`]: the faults that are possible, the chance of each, and the count of those that happened.
//! - Around the services: [`link`] to the broker, [`disk`] under the ledger, [`warehouse`] in ClickHouse's place,
//!   [`labour`] in the place of commands. [`fuse`] ends a role at its n-th step.
//! - [`survival`]: the faults of many seeds, and those that were survived.
//! - [`frontend_role`], [`worker_role`], [`producer`]: those who take part.
//!
//! # What is random
//!
//! Everything that this crate decides follows from the seed. The order within the services' hash maps and their ids do
//! not, so that a seed repeats its faults and their times, but not always each interleaving.

pub mod audit;
pub mod disk;
pub mod frontend_role;
pub mod fuse;
pub mod labour;
pub mod link;
pub mod producer;
pub mod scenario;
pub mod survival;
pub mod warehouse;
pub mod weather;
pub mod worker_role;
pub mod world;
