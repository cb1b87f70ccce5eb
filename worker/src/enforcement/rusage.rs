//! Without cgroups: nothing is limited, and what the kernel says of processes that have ended is all that is measured.
//!
//! Runs are still ended whole: their launcher adopts and kills whatever a command leaves behind.

use std::path::PathBuf;

use forecastle_resources::CpuMillis;

use crate::enforcement::cage::{Cage, Enforcer, Limits, Sample};
use crate::enforcement::error::EnforcementError;
use crate::enforcement::options::Mechanism;

/// Makes cages that hold nothing back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rusage;

#[derive(Debug)]
struct RusageCage;

impl Enforcer for Rusage {
    fn mechanism(&self) -> Mechanism {
        Mechanism::Rusage
    }

    fn create(&self, _: &str, _: &Limits) -> Result<Box<dyn Cage>, EnforcementError> {
        Ok(Box::new(RusageCage))
    }
}

impl Cage for RusageCage {
    fn joining(&self) -> &[PathBuf] {
        &[]
    }

    fn sample(&self) -> Result<Option<Sample>, EnforcementError> {
        Ok(None)
    }

    fn resize(&self, _: &Limits) -> Result<(), EnforcementError> {
        Ok(())
    }

    fn throttle(&self, _: Option<CpuMillis>) -> Result<(), EnforcementError> {
        Ok(())
    }

    fn kill_all(&self) -> Result<usize, EnforcementError> {
        Ok(0)
    }

    fn remove(&self) -> Result<(), EnforcementError> {
        Ok(())
    }
}
