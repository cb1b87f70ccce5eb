//! `--capacity cpu=1,memory=1GiB`: a vector in one argument.

use std::fmt;
use std::str::FromStr;

use forecastle_resources::{ParseVectorError, ResourceVector};

/// A vector as written on the command line: `cpu=1,memory=1GiB,io=100MiB/s,scratch=10GiB,gpu=1`. What is not named is zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CapacityArgument(pub ResourceVector);

impl FromStr for CapacityArgument {
    type Err = ParseVectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for CapacityArgument {
    /// As a table of TOML, which is how the configuration reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ResourceVector { cpu, memory, io, scratch, named } = &self.0;
        write!(f, "{{ cpu = \"{cpu}\", memory = {}, io = {}, scratch = {}", memory.0, io.0, scratch.0)?;
        if !named.is_empty() {
            f.write_str(", named = { ")?;
            for (number, (name, amount)) in named.iter().enumerate() {
                let comma = if number > 0 { ", " } else { "" };
                write!(f, "{comma}{name:?} = {amount}")?;
            }
            f.write_str(" }")?;
        }
        f.write_str(" }")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::WorkerOptions;
    use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis};
    use forecastle_service::{Sources, configuration};

    #[test]
    fn the_argument_arrives_in_the_configuration_as_it_was_meant() {
        for (text, expected) in [
            ("cpu=1,memory=1GiB", ResourceVector::new(CpuMillis::cores(1), Bytes::gib(1))),
            ("cpu=1500m", ResourceVector::new(CpuMillis(1500), Bytes::ZERO)),
            (
                "cpu=4,memory=8GiB,scratch=50GiB",
                ResourceVector::new(CpuMillis::cores(4), Bytes::gib(8)).with_scratch(Bytes::gib(50)),
            ),
            (
                " memory = 1.5GiB, io=10MiB/s , gpu=2,licence=1",
                ResourceVector::new(CpuMillis::ZERO, Bytes::mib(1536))
                    .with_io(BytesPerSecond::mib(10))
                    .with_named("gpu", 2)
                    .with_named("licence", 1),
            ),
        ] {
            let argument: CapacityArgument = text.parse().unwrap();
            assert_eq!(argument.0, expected, "{text}");
            let sources = Sources::none().flag("--capacity", "capacity", Some(argument));
            let options: WorkerOptions = configuration::load(sources).unwrap();
            assert_eq!(options.capacity, expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("", "resource=amount"),
            ("cpu", "`cpu`"),
            ("cpu=", "`cpu=`"),
            ("cpu=1,cpu=2", "`cpu` is named twice"),
            ("memory=lots", "memory: `lots`"),
            ("gpu=-1", "gpu: "),
        ] {
            let error = text.parse::<CapacityArgument>().unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
