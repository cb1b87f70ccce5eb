//! `--capacity cpu=1,memory=1GiB`: a vector in one argument.

use std::fmt;
use std::str::FromStr;

use forecastle_resources::ResourceVector;

/// A vector as written on the command line: `cpu=1,memory=1GiB,io=100MiB/s,gpu=1`. What is not named is zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CapacityArgument(pub ResourceVector);

/// The text is no vector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseCapacityError {
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

impl FromStr for CapacityArgument {
    type Err = ParseCapacityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        fn amount<T: FromStr>(resource: &str, text: &str) -> Result<T, ParseCapacityError>
        where
            T::Err: fmt::Display,
        {
            let wrong =
                |error: T::Err| ParseCapacityError::Amount { resource: resource.to_owned(), reason: error.to_string() };
            text.parse().map_err(wrong)
        }
        let mut vector = ResourceVector::ZERO;
        let mut seen = Vec::new();
        for part in text.split(',') {
            let form = || ParseCapacityError::Form(part.trim().to_owned());
            let (resource, value) = part.split_once('=').ok_or_else(form)?;
            let (resource, value) = (resource.trim(), value.trim());
            if resource.is_empty() || value.is_empty() {
                return Err(form());
            }
            if seen.contains(&resource) {
                return Err(ParseCapacityError::Repeated(resource.to_owned()));
            }
            seen.push(resource);
            match resource {
                "cpu" => vector.cpu = amount(resource, value)?,
                "memory" => vector.memory = amount(resource, value)?,
                "io" => vector.io = amount(resource, value)?,
                named => vector = vector.with_named(named, amount(named, value)?),
            }
        }
        Ok(Self(vector))
    }
}

impl fmt::Display for CapacityArgument {
    /// As a table of TOML, which is how the configuration reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ResourceVector { cpu, memory, io, named } = &self.0;
        write!(f, "{{ cpu = \"{cpu}\", memory = {}, io = {}", memory.0, io.0)?;
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
