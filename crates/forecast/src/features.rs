//! What is known of a shard before it runs, and where a forecast came from.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What a forecast came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The unit's owner declared it.
    Declared,
    /// Online statistics of the unit's runs.
    Profile,
    /// A trained model.
    Model,
}

impl Source {
    /// The name used on the wire and in history.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Declared => "declared",
            Self::Profile => "profile",
            Self::Model => "model",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The value of a request's parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ParameterValue {
    /// A number; may be anything that a float can be.
    Number(f64),
    /// A text.
    Text(String),
    /// True or false.
    Flag(bool),
}

/// What is known of a shard before it runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Features {
    /// The request type.
    pub request_type: String,
    /// The unit: the entry of the worker's catalogue that runs.
    pub unit: String,
    /// Who submitted it.
    pub tenant: String,
    /// Size of what it reads, in bytes.
    pub input_bytes: u64,
    /// How many items that is.
    pub input_items: u32,
    /// The request's parameters.
    pub parameters: BTreeMap<String, ParameterValue>,
    /// The kind of machine, where it is known beforehand.
    pub node_class: Option<String>,
}
