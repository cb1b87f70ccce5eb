//! Why there is no plan.

/// Why there is no plan. The same input makes the same error: none is worth a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Not one shard comes out of it.
    #[error("there is nothing to do: {why}")]
    NothingToDo {
        /// Why not.
        why: String,
    },
    /// The input has more items than the type allows.
    #[error("the input has {items} items; `{request_type}` takes at most {limit}")]
    TooManyItems {
        /// The request type.
        request_type: String,
        /// How many there are.
        items: usize,
        /// How many there may be.
        limit: u32,
    },
    /// A unit accepts more items than the shards of its stage can hold.
    #[error("stage `{stage}` has {items} items for `{unit}`; its shards hold at most {limit} in all")]
    TooManyForStage {
        /// The stage.
        stage: String,
        /// The unit.
        unit: String,
        /// How many there are.
        items: usize,
        /// How many there may be.
        limit: u64,
    },
    /// Several items would have the same name in outputs.
    #[error("several items have the same name: {}", listed(.names))]
    DuplicateNames {
        /// Each such name once, in order.
        names: Vec<String>,
    },
    /// The type reads no input, and there is some.
    #[error("`{request_type}` takes no input; items given: {items}")]
    UnexpectedItems {
        /// The request type.
        request_type: String,
        /// How many there are.
        items: usize,
    },
    /// A stage names a unit that is not there: type and units are not of one catalogue.
    #[error("stage `{stage}` runs the unit `{unit}`, which the catalogue does not have")]
    UnknownUnit {
        /// The stage.
        stage: String,
        /// The unit.
        unit: String,
    },
    /// A stage depends on one that does not stand before it: the type is not of a validated catalogue.
    #[error("stage `{stage}` depends on `{dependency}`, which does not stand before it")]
    UnknownStage {
        /// The stage.
        stage: String,
        /// What it depends on.
        dependency: String,
    },
}

/// How many names a message tells.
const TOLD: usize = 10;

fn listed(names: &[String]) -> String {
    let told: Vec<String> = names.iter().take(TOLD).map(|name| format!("`{name}`")).collect();
    let told = told.join(", ");
    match names.len().checked_sub(TOLD) {
        None | Some(0) => told,
        Some(more) => format!("{told} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_some_names_and_counts_the_rest() {
        let names = |count: usize| PlanError::DuplicateNames { names: (0..count).map(|n| n.to_string()).collect() };
        assert_eq!(names(2).to_string(), "several items have the same name: `0`, `1`");
        assert!(names(10).to_string().ends_with("`8`, `9`"));
        assert!(names(13).to_string().ends_with("`9` and 3 more"));
    }
}
