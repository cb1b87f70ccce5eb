//! What every Forecastle program has: layered configuration, logs, metrics, the admin endpoint, shutdown.
//!
//! # Map
//!
//! - [`configuration`]: [`configuration::load`], defaults → files → environment → command line.
//! - [`mod@reference`]: the keys of a configuration as a page of the book, from the code of its options.
//! - [`secret`]: [`Secret`], a text that is never printed and can come from a file.
//! - [`logs`]: [`LogOptions`] and [`logs::install`].
//! - [`admin`]: [`Admin`], `/metrics`, `/healthz` and `/readyz`.
//! - [`tls`]: [`TlsOptions`], what a server shows of itself.
//! - [`readiness`]: [`Readiness`] and its [`Gate`]s, what `/readyz` answers from.
//! - [`shutdown`]: [`Shutdown`], the first signal drains, the second hurries, the third gives up.
//! - [`process_metrics`]: what this process uses, as gauges.
//! - [`wall_clock`]: [`WallClock`], the time since 1970.
//! - [`crash`]: named crash points, where tests kill a program.
//! - [`metric_definitions`]: names and descriptions of the metrics of this crate.
//!
//! # What always holds
//!
//! No secret reaches a log, an error or a printed configuration through this crate. Nothing here starts a task that
//! outlives its token, except the listener for signals, which ends with the third signal.

pub mod admin;
pub mod configuration;
pub mod crash;
pub mod logs;
pub mod metric_definitions;
mod near_match;
pub mod process_metrics;
pub mod readiness;
pub mod reference;
pub mod secret;
pub mod shutdown;
pub mod tls;
pub mod wall_clock;

pub use admin::{Admin, AdminError, AdminOptions};
pub use configuration::{ConfigurationError, Sources};
pub use crash::CrashPoint;
pub use logs::{LogError, LogFormat, LogOptions};
pub use readiness::{Gate, Readiness};
pub use secret::Secret;
pub use shutdown::Shutdown;
pub use tls::{TlsError, TlsOptions};
pub use wall_clock::WallClock;
