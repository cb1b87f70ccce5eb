//! Enforcement: one thin layer over cgroups of version 2 and version 1, else rusage.
//!
//! # Map
//!
//! - [`cage`]: [`Cage`], the limits and the meter of one run, and [`Enforcer`], which makes them.
//! - [`options`]: [`EnforcementOptions`]; [`detection`]: which of the three this machine has.
//! - [`cgroup_v1`], [`cgroup_v2`], [`rusage`]: the three.
//! - `delegation`: a base of version 2 made ready, or why it cannot be; `headroom`: the last part of a run's memory.
//! - [`own_cgroup`]: where this process is; [`tenure`]: the folder of one life of the worker, and sweeping what earlier
//!   lives left; [`cgroup_folders`]: killing what is in cgroups and removing them.
//! - [`control_file`], [`statistics`], [`block_device`]: the kernel's files, what they say, and what they call a disk.
//! - [`launcher`]: the small program between the worker and a command.
//! - [`capacity`]: what the machine has.
//!
//! # What always holds
//!
//! A command is in its cage before its program is loaded. A cage that is dropped kills what is in it and removes
//! itself. Nothing outside the worker's own base is ever killed, changed or removed.

pub mod block_device;
pub mod cage;
pub mod capacity;
pub mod cgroup_folders;
pub mod cgroup_v1;
pub mod cgroup_v2;
pub mod control_file;
mod delegation;
pub mod detection;
pub mod error;
mod headroom;
pub mod launcher;
pub mod options;
pub mod own_cgroup;
pub mod rusage;
pub mod statistics;
pub mod tenure;

pub use cage::{Cage, Enforcer, Limits, Sample};
pub use detection::{Detected, detect};
pub use error::EnforcementError;
pub use options::{CpuMode, EnforcementOptions, Mechanism};
