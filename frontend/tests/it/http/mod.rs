//! The HTTP API through a real listening server: over a ledger on disk, with planner and dispatcher behind it and the
//! broker in memory.

mod api;
mod conformance;
mod connections;
mod progress;

use crate::service;
