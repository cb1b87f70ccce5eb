//! The real programs on the real RabbitMQ and ClickHouse, started, fed and killed by tests.
//!
//! # Map
//!
//! - [`stack`]: [`Stack`](stack::Stack), the servers that a test uses: this checkout's, or some of its own.
//! - [`system`]: [`System`](system::System), one frontend and some workers on a virtual host and a database of their
//!   own.
//! - [`program`]: [`Program`](program::Program), one process of ours.
//! - [`host`]: [`Host`](host::Host), a network namespace for a program, with a link that can be cut.
//! - [`faults`]: runs of such systems under faults, for `make test-faults`.
//!
//! # What always holds
//!
//! A system cleans up when it is dropped, also when its test fails: processes (by id), virtual host, database, files.

pub mod faults;
pub mod host;
pub mod program;
pub mod stack;
pub mod system;
