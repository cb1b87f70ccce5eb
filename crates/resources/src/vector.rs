//! The resource vector: what a pool holds and a lease takes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bytes, BytesPerSecond, CpuMillis};

/// One entry of a [`ResourceVector`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// CPU, in thousandths of a core.
    Cpu,
    /// Memory, in bytes.
    Memory,
    /// I/O, in bytes per second.
    Io,
    /// Scratch disk, in bytes.
    Scratch,
    /// A named resource (a GPU, a licence), in whole units.
    Named(String),
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Memory => f.write_str("memory"),
            Self::Io => f.write_str("io"),
            Self::Scratch => f.write_str("scratch"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// An amount of every resource. Entries that are absent are zero.
///
/// The order of vectors is partial and by component: `a` fits in `b` if every entry of `a` is at most that of `b`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceVector {
    /// CPU, in thousandths of a core.
    pub cpu: CpuMillis,
    /// Memory, in bytes.
    pub memory: Bytes,
    /// I/O rate, in bytes per second.
    pub io: BytesPerSecond,
    /// Scratch disk, in bytes.
    pub scratch: Bytes,
    /// Named resources, in whole units; never holds a zero.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<String, u64>,
}

impl ResourceVector {
    /// Nothing of anything.
    pub const ZERO: Self = Self::new(CpuMillis::ZERO, Bytes::ZERO);

    /// A vector of CPU and memory alone.
    pub const fn new(cpu: CpuMillis, memory: Bytes) -> Self {
        Self { cpu, memory, io: BytesPerSecond::ZERO, scratch: Bytes::ZERO, named: BTreeMap::new() }
    }

    /// The same vector with this I/O rate.
    #[must_use]
    pub fn with_io(mut self, io: BytesPerSecond) -> Self {
        self.io = io;
        self
    }

    /// The same vector with this much scratch disk.
    #[must_use]
    pub fn with_scratch(mut self, scratch: Bytes) -> Self {
        self.scratch = scratch;
        self
    }

    /// The same vector with this amount of a named resource.
    #[must_use]
    pub fn with_named(mut self, name: impl Into<String>, amount: u64) -> Self {
        let name = name.into();
        if amount == 0 {
            self.named.remove(&name);
        } else {
            self.named.insert(name, amount);
        }
        self
    }

    /// True if nothing is held.
    pub fn is_zero(&self) -> bool {
        let plain = [self.cpu.0, self.memory.0, self.io.0, self.scratch.0];
        plain.into_iter().all(|v| v == 0) && self.named.values().all(|v| *v == 0)
    }

    /// The amount of one resource, in that resource's unit.
    pub fn get(&self, resource: &Resource) -> u64 {
        match resource {
            Resource::Cpu => self.cpu.0,
            Resource::Memory => self.memory.0,
            Resource::Io => self.io.0,
            Resource::Scratch => self.scratch.0,
            Resource::Named(name) => self.named.get(name).copied().unwrap_or(0),
        }
    }

    /// The first resource of which `self` holds more than `capacity`, or `None` if it fits.
    pub fn exceeds(&self, capacity: &Self) -> Option<Resource> {
        if self.cpu > capacity.cpu {
            Some(Resource::Cpu)
        } else if self.memory > capacity.memory {
            Some(Resource::Memory)
        } else if self.io > capacity.io {
            Some(Resource::Io)
        } else if self.scratch > capacity.scratch {
            Some(Resource::Scratch)
        } else {
            self.named
                .iter()
                .find(|(name, amount)| **amount > capacity.named.get(*name).copied().unwrap_or(0))
                .map(|(name, _)| Resource::Named(name.clone()))
        }
    }

    /// True if every entry is at most that of `capacity`.
    pub fn fits_in(&self, capacity: &Self) -> bool {
        self.exceeds(capacity).is_none()
    }

    /// How many times `self` fits into `capacity`, together; as many as there are numbers if it is nothing.
    pub fn times_in(&self, capacity: &Self) -> u64 {
        let times = |part: u64, whole: u64| whole.checked_div(part).unwrap_or(u64::MAX);
        let named = self.named.iter().map(|(name, part)| times(*part, capacity.named.get(name).copied().unwrap_or(0)));
        named
            .min()
            .unwrap_or(u64::MAX)
            .min(times(self.cpu.0, capacity.cpu.0))
            .min(times(self.memory.0, capacity.memory.0))
            .min(times(self.io.0, capacity.io.0))
            .min(times(self.scratch.0, capacity.scratch.0))
    }

    /// The sum by component; saturates.
    #[must_use]
    pub fn saturating_add(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// The difference by component, with zero where it would be negative.
    #[must_use]
    pub fn saturating_sub(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    /// The difference by component, or the resource of which there is not enough.
    pub fn checked_sub(&self, other: &Self) -> Result<Self, Resource> {
        match other.exceeds(self) {
            Some(resource) => Err(resource),
            None => Ok(self.saturating_sub(other)),
        }
    }

    /// The larger entry of both, by component.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        self.zip(other, u64::max)
    }

    /// The smaller entry of both, by component.
    #[must_use]
    pub fn min(&self, other: &Self) -> Self {
        self.zip(other, u64::min)
    }

    /// The largest share of `capacity` that any entry takes (the dominant share of Ghodsi et al., NSDI 2011):
    /// 1.0 is all of some resource; infinite if something is asked of which `capacity` has none.
    pub fn dominant_share(&self, capacity: &Self) -> f64 {
        let share = |part: u64, whole: u64| match (part, whole) {
            (0, _) => 0.0,
            (_, 0) => f64::INFINITY,
            (part, whole) => part as f64 / whole as f64,
        };
        self.named
            .iter()
            .map(|(name, amount)| share(*amount, capacity.named.get(name).copied().unwrap_or(0)))
            .fold(0.0_f64, f64::max)
            .max(share(self.cpu.0, capacity.cpu.0))
            .max(share(self.memory.0, capacity.memory.0))
            .max(share(self.io.0, capacity.io.0))
            .max(share(self.scratch.0, capacity.scratch.0))
    }

    fn zip(&self, other: &Self, op: impl Fn(u64, u64) -> u64) -> Self {
        let mut named = BTreeMap::new();
        for name in self.named.keys().chain(other.named.keys()) {
            let of = |v: &Self| v.named.get(name).copied().unwrap_or(0);
            let value = op(of(self), of(other));
            if value > 0 {
                named.insert(name.clone(), value);
            }
        }
        Self {
            cpu: CpuMillis(op(self.cpu.0, other.cpu.0)),
            memory: Bytes(op(self.memory.0, other.memory.0)),
            io: BytesPerSecond(op(self.io.0, other.io.0)),
            scratch: Bytes(op(self.scratch.0, other.scratch.0)),
            named,
        }
    }
}

impl fmt::Display for ResourceVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cpu, {} memory", self.cpu, self.memory)?;
        if self.io.0 > 0 {
            write!(f, ", {} io", self.io)?;
        }
        if self.scratch.0 > 0 {
            write!(f, ", {} scratch", self.scratch)?;
        }
        for (name, amount) in &self.named {
            write!(f, ", {amount} {name}")?;
        }
        Ok(())
    }
}

/// The text is no vector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseVectorError {
    /// A part is not of the form `resource=amount`.
    #[error("`{0}` is not of the form resource=amount, such as cpu=1,memory=1GiB")]
    Form(String),
    /// A resource is named twice.
    #[error("`{0}` is named twice")]
    Repeated(String),
    /// An amount is none.
    #[error("{resource}: {reason}")]
    Amount {
        /// The resource.
        resource: String,
        /// What is wrong.
        reason: String,
    },
}

impl FromStr for ResourceVector {
    type Err = ParseVectorError;

    /// As written on a command line: `cpu=1,memory=1GiB,io=100MiB/s,scratch=10GiB,gpu=1`. What is not named is zero.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        fn amount<T: FromStr>(resource: &str, text: &str) -> Result<T, ParseVectorError>
        where
            T::Err: fmt::Display,
        {
            let wrong =
                |error: T::Err| ParseVectorError::Amount { resource: resource.to_owned(), reason: error.to_string() };
            text.parse().map_err(wrong)
        }
        let mut vector = Self::ZERO;
        let mut seen = Vec::new();
        for part in text.split(',') {
            let form = || ParseVectorError::Form(part.trim().to_owned());
            let (resource, value) = part.split_once('=').ok_or_else(form)?;
            let (resource, value) = (resource.trim(), value.trim());
            if resource.is_empty() || value.is_empty() {
                return Err(form());
            }
            if seen.contains(&resource) {
                return Err(ParseVectorError::Repeated(resource.to_owned()));
            }
            seen.push(resource);
            match resource {
                "cpu" => vector.cpu = amount(resource, value)?,
                "memory" => vector.memory = amount(resource, value)?,
                "io" => vector.io = amount(resource, value)?,
                "scratch" => vector.scratch = amount(resource, value)?,
                named => vector = vector.with_named(named, amount(named, value)?),
            }
        }
        Ok(vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vectors() -> impl Strategy<Value = ResourceVector> {
        (any::<[u32; 4]>(), proptest::collection::btree_map("[a-c]", 1u64..9, 0..3)).prop_map(
            |([cpu, memory, io, scratch], named)| ResourceVector {
                cpu: CpuMillis(cpu.into()),
                memory: Bytes(memory.into()),
                io: BytesPerSecond(io.into()),
                scratch: Bytes(scratch.into()),
                named,
            },
        )
    }

    proptest! {
        #[test]
        fn adding_then_taking_away_changes_nothing(a in vectors(), b in vectors()) {
            prop_assert_eq!(a.saturating_add(&b).checked_sub(&b), Ok(a));
        }

        #[test]
        fn what_fits_can_be_taken(a in vectors(), b in vectors()) {
            prop_assert_eq!(a.fits_in(&b), b.checked_sub(&a).is_ok());
            prop_assert_eq!(a.fits_in(&b), a.dominant_share(&b) <= 1.0);
        }

        #[test]
        fn as_many_fit_as_can_be_taken_one_by_one(a in vectors(), b in vectors()) {
            let times = a.times_in(&b);
            prop_assert_eq!(times > 0, a.fits_in(&b));
            let mut rest = b;
            for _ in 0..times.min(100) {
                rest = rest.checked_sub(&a).unwrap();
            }
            prop_assert!(times > 100 || !a.fits_in(&rest));
        }

        #[test]
        fn both_fit_in_their_maximum(a in vectors(), b in vectors()) {
            let max = a.max(&b);
            prop_assert!(a.fits_in(&max) && b.fits_in(&max));
            let min = a.min(&b);
            prop_assert!(min.fits_in(&a) && min.fits_in(&b));
        }

        #[test]
        fn what_exceeds_is_what_there_is_too_little_of(a in vectors(), b in vectors()) {
            if let Some(resource) = a.exceeds(&b) {
                prop_assert!(a.get(&resource) > b.get(&resource), "{}", resource);
            }
        }
    }

    #[test]
    fn names_the_scarce_resource() {
        let small = ResourceVector::new(CpuMillis(1000), Bytes::gib(1));
        let gpu = ResourceVector::new(CpuMillis(1000), Bytes::gib(1)).with_named("gpu", 1);
        assert_eq!(gpu.exceeds(&small), Some(Resource::Named("gpu".into())));
        assert!(gpu.dominant_share(&small).is_infinite());
        let scratch = small.clone().with_scratch(Bytes(1));
        assert_eq!(scratch.exceeds(&small), Some(Resource::Scratch));
        assert!(scratch.dominant_share(&small).is_infinite());
        assert_eq!(scratch.get(&Resource::Scratch), 1);
        assert!(!ResourceVector::ZERO.with_scratch(Bytes(1)).is_zero());
    }

    #[test]
    fn scratch_is_read_and_printed_as_the_others_are() {
        let vector: ResourceVector = "cpu=4,memory=8GiB,scratch=50GiB".parse().unwrap();
        assert_eq!(vector, ResourceVector::new(CpuMillis::cores(4), Bytes::gib(8)).with_scratch(Bytes::gib(50)));
        assert_eq!(vector.to_string(), "4000m cpu, 8GiB memory, 50GiB scratch");
        assert_eq!(Resource::Scratch.to_string(), "scratch");
        let error = "scratch=much".parse::<ResourceVector>().unwrap_err();
        assert!(error.to_string().starts_with("scratch: `much`"), "{error}");
    }
}
