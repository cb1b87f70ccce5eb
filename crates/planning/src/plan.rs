//! Plans.

use serde::{Deserialize, Serialize};

/// A file of the input, as the analysis found it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Item {
    /// Where it is: an absolute path.
    pub path: String,
    /// What it is called in outputs, unique in its request: its path below the input's directory.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it looks like text: UTF-8 without NUL.
    pub text: bool,
}

/// What is to be done for a request: immutable, and nothing is left to decide but when and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The stages, each after those it depends on.
    pub stages: Vec<PlannedStage>,
}

impl Plan {
    /// How many shards there are in all.
    pub fn shard_count(&self) -> usize {
        self.stages.iter().map(|stage| stage.shards.len()).sum()
    }
}

/// Shards that start together, once every shard of the stages they depend on has succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStage {
    /// Its name, unique in the plan.
    pub name: String,
    /// Places in [`Plan::stages`], all before this one's.
    pub depends_on: Vec<u32>,
    /// The shards, the largest first, so that long work starts early. A stage without shards is complete by itself.
    pub shards: Vec<PlannedShard>,
}

/// What one run does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedShard {
    /// The unit of the catalogue.
    pub unit: String,
    /// The items it reads, by name; empty in a stage that runs once.
    pub items: Vec<Item>,
    /// The sum of the items' sizes in bytes; saturates.
    pub bytes: u64,
}
