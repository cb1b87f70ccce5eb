//! What a run used, and what is not believed of it.

use std::fmt;
use std::time::Duration;

use forecastle_resources::Bytes;
use serde::{Deserialize, Serialize};

use crate::declared::Declared;
use crate::features::Features;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It did its work: what it used is what it needed.
    Succeeded,
    /// It was killed for memory: a censored observation, it needed more than `limit`.
    OutOfMemory {
        /// What it was allowed.
        limit: Bytes,
    },
    /// Any other way; says nothing of what the work needs.
    Other,
}

/// What one run used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// What was known of the shard before.
    pub features: Features,
    /// What its unit's owner says of it now.
    pub declared: Declared,
    /// How it ended.
    pub ending: Ending,
    /// Its largest memory.
    pub memory: Bytes,
    /// User and system CPU time of all its processes.
    pub cpu_time: Duration,
    /// Bytes read from and written to devices.
    pub io_bytes: u64,
    /// From start to end.
    pub duration: Duration,
}

/// Learns from runs. Quick: it is called for every completion.
pub trait Learner: Send + Sync {
    /// Takes note of a run. What cannot be true is left out (and counted), never an error: learning stops no work.
    fn observe(&self, observation: &Observation);
}

/// Why an observation was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rejection {
    /// It ended neither in success nor for memory.
    Unfinished,
    /// It took no time at all, so that rates have no meaning.
    NoDuration,
    /// It lasted longer than a year.
    AbsurdDuration,
    /// It used no memory (which means that nobody measured it), or was allowed none.
    NoMemory,
    /// More memory than a PiB, used or allowed.
    AbsurdMemory,
    /// More input than an EiB.
    AbsurdInput,
    /// More than 65,536 cores.
    AbsurdCpu,
    /// More than a PiB of I/O a second.
    AbsurdIo,
}

impl Rejection {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 8] = [
        Self::Unfinished,
        Self::NoDuration,
        Self::AbsurdDuration,
        Self::NoMemory,
        Self::AbsurdMemory,
        Self::AbsurdInput,
        Self::AbsurdCpu,
        Self::AbsurdIo,
    ];

    /// The name used as a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::NoDuration => "no-duration",
            Self::AbsurdDuration => "absurd-duration",
            Self::NoMemory => "no-memory",
            Self::AbsurdMemory => "absurd-memory",
            Self::AbsurdInput => "absurd-input",
            Self::AbsurdCpu => "absurd-cpu",
            Self::AbsurdIo => "absurd-io",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The largest memory that is believed, and that is ever reserved without a declared reason, in bytes.
pub(crate) const LARGEST_MEMORY: u64 = 1 << 50;
const LARGEST_INPUT: u64 = 1 << 60;
const LARGEST_IO_PER_SECOND: f64 = (1_u64 << 50) as f64;
const LARGEST_CPU_MILLIS: f64 = 65_536_000.0;
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// A believable observation, in the units that the estimates calculate in. All numbers are finite and ≥ 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    pub(crate) input_bytes: u64,
    /// Bytes used; if `censored`, the limit that was too low.
    pub(crate) memory: u64,
    pub(crate) cpu_millis: f64,
    pub(crate) io_bytes_per_second: f64,
    pub(crate) seconds: f64,
    pub(crate) censored: bool,
}

impl Sample {
    /// What is to be learnt from a run.
    pub(crate) fn of(observation: &Observation) -> Result<Self, Rejection> {
        let (memory, censored) = match observation.ending {
            Ending::Succeeded => (observation.memory.0, false),
            Ending::OutOfMemory { limit } => (limit.0, true),
            Ending::Other => return Err(Rejection::Unfinished),
        };
        if memory == 0 {
            return Err(Rejection::NoMemory);
        }
        if memory > LARGEST_MEMORY {
            return Err(Rejection::AbsurdMemory);
        }
        if observation.features.input_bytes > LARGEST_INPUT {
            return Err(Rejection::AbsurdInput);
        }
        if observation.duration > LONGEST {
            return Err(Rejection::AbsurdDuration);
        }
        let mut sample = Self {
            input_bytes: observation.features.input_bytes,
            memory,
            cpu_millis: 0.0,
            io_bytes_per_second: 0.0,
            seconds: observation.duration.as_secs_f64(),
            censored,
        };
        if censored {
            // Of a run that was cut off only the limit says something.
            return Ok(sample);
        }
        if observation.duration.is_zero() {
            return Err(Rejection::NoDuration);
        }
        sample.cpu_millis = observation.cpu_time.as_secs_f64() / sample.seconds * 1000.0;
        sample.io_bytes_per_second = observation.io_bytes as f64 / sample.seconds;
        if sample.cpu_millis > LARGEST_CPU_MILLIS {
            return Err(Rejection::AbsurdCpu);
        }
        if sample.io_bytes_per_second > LARGEST_IO_PER_SECOND {
            return Err(Rejection::AbsurdIo);
        }
        Ok(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(ending: Ending) -> Observation {
        Observation {
            features: Features { input_bytes: 100, ..Features::default() },
            declared: Declared::default(),
            ending,
            memory: Bytes::mib(1),
            cpu_time: Duration::from_millis(500),
            io_bytes: 1000,
            duration: Duration::from_secs(2),
        }
    }

    #[test]
    fn rates_are_per_second_of_the_run() {
        let sample = Sample::of(&run(Ending::Succeeded)).unwrap();
        assert!((sample.cpu_millis - 250.0).abs() < 1e-9);
        assert!((sample.io_bytes_per_second - 500.0).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_true_is_refused_for_a_named_reason() {
        let good = run(Ending::Succeeded);
        let with = |change: &dyn Fn(&mut Observation)| {
            let mut observation = good.clone();
            change(&mut observation);
            Sample::of(&observation).unwrap_err()
        };
        assert_eq!(with(&|o| o.duration = Duration::ZERO), Rejection::NoDuration);
        assert_eq!(with(&|o| o.duration = Duration::MAX), Rejection::AbsurdDuration);
        assert_eq!(with(&|o| o.memory = Bytes(u64::MAX)), Rejection::AbsurdMemory);
        assert_eq!(with(&|o| o.memory = Bytes::ZERO), Rejection::NoMemory);
        assert_eq!(with(&|o| o.cpu_time = Duration::MAX), Rejection::AbsurdCpu);
        assert_eq!(with(&|o| o.io_bytes = u64::MAX), Rejection::AbsurdIo);
        assert_eq!(with(&|o| o.features.input_bytes = u64::MAX), Rejection::AbsurdInput);
        assert_eq!(with(&|o| o.ending = Ending::Other), Rejection::Unfinished);
        assert_eq!(with(&|o| o.ending = Ending::OutOfMemory { limit: Bytes(u64::MAX) }), Rejection::AbsurdMemory);
        assert_eq!(with(&|o| o.ending = Ending::OutOfMemory { limit: Bytes::ZERO }), Rejection::NoMemory);
    }

    #[test]
    fn discriminants_follow_the_list() {
        for (index, reason) in Rejection::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }

    proptest! {
        #[test]
        fn what_is_believed_is_finite(
            memory: u64, input: u64, cpu: Duration, io: u64, duration: Duration, limit in proptest::option::of(any::<u64>()),
        ) {
            let mut observation = run(limit.map_or(Ending::Succeeded, |l| Ending::OutOfMemory { limit: Bytes(l) }));
            observation.memory = Bytes(memory);
            observation.features.input_bytes = input;
            (observation.cpu_time, observation.io_bytes, observation.duration) = (cpu, io, duration);
            if let Ok(sample) = Sample::of(&observation) {
                for value in [sample.cpu_millis, sample.io_bytes_per_second, sample.seconds] {
                    prop_assert!(value.is_finite() && value >= 0.0);
                }
                prop_assert!(sample.memory <= LARGEST_MEMORY);
            }
        }
    }
}
