//! Which mechanism this machine, and this process on it, can use.

use std::sync::Arc;

use forecastle_protos::ids::WorkerId;

use crate::enforcement::block_device::BlockDevice;
use crate::enforcement::cage::Enforcer;
use crate::enforcement::cgroup_v1::CgroupV1;
use crate::enforcement::cgroup_v2::CgroupV2;
use crate::enforcement::error::EnforcementError;
use crate::enforcement::options::{EnforcementOptions, Mechanism};
use crate::enforcement::own_cgroup::OwnCgroup;
use crate::enforcement::rusage::Rusage;

/// What was found.
#[derive(Debug, Clone)]
pub struct Detected {
    /// What makes the cages.
    pub enforcer: Arc<dyn Enforcer>,
    /// Why nothing better could be used: worth a warning. `None` if there are limits.
    pub shortfall: Option<String>,
}

/// Finds the best mechanism that works, or the one that is insisted on; sweeps what earlier lives of workers left below
/// the same base, and prepares the folders of this life. Blocks, for seconds if there is much to sweep.
pub fn detect(options: &EnforcementOptions, worker: WorkerId) -> Result<Detected, EnforcementError> {
    let unlimited = |shortfall| Detected { enforcer: Arc::new(Rusage), shortfall };
    if options.mechanism == Some(Mechanism::Rusage) {
        return Ok(unlimited(Some("it is configured so".to_owned())));
    }
    let mut devices = Vec::new();
    for path in &options.limit_io_of {
        match BlockDevice::of(path)? {
            Some(device) if !devices.contains(&device) => devices.push(device),
            Some(_) => {}
            None => tracing::warn!(path = %path.display(), "no disk holds this path: its I/O is not limited"),
        }
    }
    let own = OwnCgroup::detect()?;
    let limits = |enforcer: Arc<dyn Enforcer>| Detected { enforcer, shortfall: None };
    let v2 = || CgroupV2::new(&own, options, devices.clone(), worker).map(|found| limits(Arc::new(found)));
    let v1 = || CgroupV1::new(&own, options, devices.clone(), worker).map(|found| limits(Arc::new(found)));
    match options.mechanism {
        Some(Mechanism::CgroupV2) => v2(),
        Some(Mechanism::CgroupV1) => v1(),
        _ => v2().or_else(|no_v2| v1().or_else(|no_v1| Ok(unlimited(Some(format!("{no_v2}; {no_v1}")))))),
    }
}
