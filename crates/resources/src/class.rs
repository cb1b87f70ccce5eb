//! Size classes: which queue a shard travels in.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bytes, CpuMillis, Reservation, ResourceVector};

/// The size of a shard relative to a reference worker. A worker subscribes to the classes that its **total**
/// capacity could hold; whether a shard fits is always decided by its exact vector, never by its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SizeClass {
    /// Runs in process and is predicted to take at most [`SizeClass::TINY_DURATION`].
    Tiny,
    /// At most an eighth of the reference worker.
    S,
    /// At most a quarter.
    M,
    /// At most a half.
    L,
    /// More than a half.
    Xl,
}

impl SizeClass {
    /// Every class, the smallest first.
    pub const ALL: [Self; 5] = [Self::Tiny, Self::S, Self::M, Self::L, Self::Xl];

    /// The longest predicted duration of a `tiny` shard.
    pub const TINY_DURATION: Duration = Duration::from_millis(100);

    /// The name used in queues and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::S => "s",
            Self::M => "m",
            Self::L => "l",
            Self::Xl => "xl",
        }
    }

    /// The dominant share of the reference worker above which a shard belongs to this class (exclusive).
    pub const fn lower_share(self) -> f64 {
        match self {
            Self::Tiny | Self::S => 0.0,
            Self::M => 0.125,
            Self::L => 0.25,
            Self::Xl => 0.5,
        }
    }
}

impl fmt::Display for SizeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no size class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no size class: use tiny, s, m, l or xl")]
pub struct ParseSizeClassError(String);

impl FromStr for SizeClass {
    type Err = ParseSizeClassError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|c| c.as_str() == text).ok_or_else(|| ParseSizeClassError(text.to_owned()))
    }
}

/// The worker that size classes are measured against: a fixed yardstick, not a real machine, so that a shard's
/// class does not change when the fleet does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ReferenceWorker(pub ResourceVector);

impl Default for ReferenceWorker {
    /// Eight cores and 16 GiB; I/O and scratch disk do not decide the class unless the yardstick names some.
    fn default() -> Self {
        Self(ResourceVector::new(CpuMillis::cores(8), Bytes::gib(16)))
    }
}

impl ReferenceWorker {
    /// The class of a reservation. Only resources that the yardstick has decide; `in_process` says that the
    /// shard is a small task which needs no process of its own.
    pub fn class_of(&self, reservation: &Reservation, in_process: bool) -> SizeClass {
        if in_process && reservation.duration <= SizeClass::TINY_DURATION {
            return SizeClass::Tiny;
        }
        let of = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let vector = &reservation.vector;
        let share = of(vector.cpu.0, self.0.cpu.0)
            .max(of(vector.memory.0, self.0.memory.0))
            .max(of(vector.io.0, self.0.io.0))
            .max(of(vector.scratch.0, self.0.scratch.0));
        [SizeClass::Xl, SizeClass::L, SizeClass::M]
            .into_iter()
            .find(|class| share > class.lower_share())
            .unwrap_or(SizeClass::S)
    }

    /// True if some shard of `class` could fit in `capacity`: the smallest of its class takes more than
    /// [`SizeClass::lower_share`] of *some* resource of the yardstick, so one of them must be available.
    pub fn could_hold(&self, capacity: &ResourceVector, class: SizeClass) -> bool {
        let lower = class.lower_share();
        let above = |have: u64, whole: u64| whole > 0 && have as f64 > lower * whole as f64;
        above(capacity.cpu.0, self.0.cpu.0)
            || above(capacity.memory.0, self.0.memory.0)
            || above(capacity.io.0, self.0.io.0)
            || above(capacity.scratch.0, self.0.scratch.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reservation(cpu: u64, memory: u64, millis: u64) -> Reservation {
        Reservation::new(ResourceVector::new(CpuMillis(cpu), Bytes(memory)), Duration::from_millis(millis))
    }

    #[test]
    fn classes_follow_the_dominant_share() {
        let reference = ReferenceWorker::default();
        assert_eq!(reference.class_of(&reservation(1000, 0, 1000), false), SizeClass::S);
        assert_eq!(reference.class_of(&reservation(1001, 0, 1000), false), SizeClass::M);
        assert_eq!(reference.class_of(&reservation(100, Bytes::gib(5).0, 1000), false), SizeClass::L);
        assert_eq!(reference.class_of(&reservation(8000, 0, 1000), false), SizeClass::Xl);
        assert_eq!(reference.class_of(&reservation(10, 10, 50), true), SizeClass::Tiny);
        assert_eq!(reference.class_of(&reservation(10, 10, 500), true), SizeClass::S);
    }

    #[test]
    fn scratch_decides_where_the_yardstick_has_some() {
        let mut large = reservation(10, 10, 1000);
        large.vector.scratch = Bytes::gib(60);
        assert_eq!(ReferenceWorker::default().class_of(&large, false), SizeClass::S);
        let reference = ReferenceWorker(ReferenceWorker::default().0.with_scratch(Bytes::gib(100)));
        assert_eq!(reference.class_of(&large, false), SizeClass::Xl);
        assert!(reference.could_hold(&large.vector, SizeClass::Xl));
    }

    proptest! {
        #[test]
        fn what_fits_a_worker_travels_in_a_queue_it_subscribes_to(
            cpu in 0u64..20_000, memory in 0u64..1 << 36, more_cpu in 0u64..9000, more_memory in 0u64..1 << 34,
        ) {
            let reference = ReferenceWorker::default();
            let shard = reservation(cpu, memory, 1000);
            let capacity = ResourceVector::new(CpuMillis(cpu + more_cpu + 1), Bytes(memory + more_memory + 1));
            let class = reference.class_of(&shard, false);
            prop_assert!(reference.could_hold(&capacity, class));
        }
    }
}
