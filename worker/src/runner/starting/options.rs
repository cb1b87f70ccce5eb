//! What is made ready ahead of the work.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is made ready ahead of the work: for the shards that the frontend expects soon, cgroups of the size that these
/// will reserve, each with a process inside that waits for its command, or with the worker's program waiting for an
/// isolated task. A run that finds one ready starts at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PreallocationOptions {
    /// The most that are kept ready at once; 0 for none. Each takes a few MiB of memory (beside what runs reserve) and
    /// no CPU.
    pub most: usize,
}

impl PreallocationOptions {
    /// The most that can be configured.
    pub const MOST: usize = 1024;
}

impl Default for PreallocationOptions {
    fn default() -> Self {
        Self { most: 16 }
    }
}
