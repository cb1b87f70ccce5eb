//! Names: of request types and units, and what may stand in the others.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
pub const MAX_LENGTH: usize = 64;

/// The text may not be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no name: use 1 to 64 of a-z, 0-9, `-` and `_`, a letter or digit first", .0.chars().take(64).collect::<String>())]
pub struct NameError(String);

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name, if `text` may be one.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                if is_valid(&text) { Ok(Self(text)) } else { Err(NameError(text)) }
            }

            /// For a catalogue that is going to be refused: later checks still need something to call it.
            pub(crate) fn unchecked(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        // Sound for maps: equality, order and hash are those of the text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name! {
    /// The name of a request type.
    TypeName
}

name! {
    /// The name of a unit.
    UnitName
}

/// True if `text` may name a request type, a unit, a stage or a resource: 1 to 64 of `a-z`, `0-9`, `-` and `_`, a
/// letter or digit first.
pub fn is_valid(text: &str) -> bool {
    text.len() <= MAX_LENGTH
        && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}

/// True if `text` may name a fleet, whose name is part of a queue's: 1 to 64 of `a-z`, `0-9` and `-`.
pub fn is_valid_fleet(text: &str) -> bool {
    (1..=MAX_LENGTH).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// True if `text` may name a typed task: names joined by dots.
pub fn is_valid_task(text: &str) -> bool {
    text.len() <= MAX_LENGTH && text.split('.').all(is_valid)
}

/// True if `text` may name a parameter or placeholder: 1 to 64 of `a-z`, `0-9` and `_`, a letter first.
pub fn is_valid_parameter(text: &str) -> bool {
    text.len() <= MAX_LENGTH
        && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for text in ["archive", "a", "7z", "two-words", "two_words", &"x".repeat(64)] {
            assert!(UnitName::new(text).is_ok(), "{text}");
        }
        for text in ["", "-x", "_x", "Archive", "a.b", "a b", "../x", "é", &"x".repeat(65)] {
            let error = TypeName::new(text).unwrap_err().to_string();
            assert!(error.contains("1 to 64"), "{error}");
        }
        assert!(serde_json::from_str::<UnitName>("\"../x\"").is_err());
    }

    #[test]
    fn other_names_have_rules_of_their_own() {
        assert!(is_valid_fleet("gpu-1") && !is_valid_fleet("gpu_1") && !is_valid_fleet("") && !is_valid_fleet("a.b"));
        assert!(is_valid_task("forecastle.manifest") && !is_valid_task("a..b") && !is_valid_task(""));
        assert!(is_valid_parameter("level_2") && !is_valid_parameter("2level") && !is_valid_parameter("a-b"));
    }
}
