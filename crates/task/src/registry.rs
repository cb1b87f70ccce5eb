//! Tasks by name, their types erased.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::context::Context;
use crate::task::{Task, TaskError};

/// A task whose types are erased: JSON in, JSON out.
#[async_trait]
pub trait RunnableTask: Send + Sync + 'static {
    /// Reads the parameters (an object), runs, and writes the result.
    async fn run(&self, parameters: Value, context: &Context) -> Result<Value, TaskError>;
}

struct Erased<T>(T);

#[async_trait]
impl<T: Task> RunnableTask for Erased<T> {
    async fn run(&self, parameters: Value, context: &Context) -> Result<Value, TaskError> {
        let parameters = serde_json::from_value(parameters)
            .map_err(|error| TaskError::permanent(format!("the parameters are not those of `{}`: {error}", T::NAME)))?;
        let output = self.0.run(parameters, context).await?;
        serde_json::to_value(output)
            .map_err(|error| TaskError::permanent(format!("the result of `{}` cannot be JSON: {error}", T::NAME)))
    }
}

/// A task of this name is there already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is a task `{name}` already")]
pub struct NameTaken {
    /// The name.
    pub name: &'static str,
}

/// The tasks that a worker can run, by name.
#[derive(Clone, Default)]
pub struct Registry {
    tasks: BTreeMap<&'static str, Arc<dyn RunnableTask>>,
}

impl Registry {
    /// No tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task. Fails, and changes nothing, if another has its name.
    pub fn register<T: Task>(&mut self, task: T) -> Result<(), NameTaken> {
        if self.tasks.contains_key(T::NAME) {
            return Err(NameTaken { name: T::NAME });
        }
        self.tasks.insert(T::NAME, Arc::new(Erased(task)));
        Ok(())
    }

    /// The task of this name.
    pub fn get(&self, name: &str) -> Option<Arc<dyn RunnableTask>> {
        self.tasks.get(name).cloned()
    }

    /// The names, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &'static str> {
        self.tasks.keys().copied()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.tasks.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::*;
    use crate::context::ContextParts;

    struct Double;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        number: i64,
    }

    #[derive(Serialize)]
    struct Doubled {
        twice: i64,
    }

    #[async_trait]
    impl Task for Double {
        const NAME: &'static str = "test.double";
        type Parameters = Parameters;
        type Output = Doubled;

        async fn run(&self, parameters: Parameters, _: &Context) -> Result<Doubled, TaskError> {
            let twice = parameters.number.checked_mul(2).ok_or_else(|| TaskError::permanent("too large to double"))?;
            Ok(Doubled { twice })
        }
    }

    fn registry() -> Registry {
        let mut registry = Registry::new();
        registry.register(Double).unwrap();
        registry
    }

    async fn run(parameters: Value) -> Result<Value, TaskError> {
        let context = Context::new(ContextParts::default());
        registry().get("test.double").unwrap().run(parameters, &context).await
    }

    #[tokio::test]
    async fn types_are_read_and_written_around_the_task() {
        assert_eq!(run(json!({ "number": 21 })).await.unwrap(), json!({ "twice": 42 }));
        let error = run(json!({ "number": i64::MAX })).await.unwrap_err();
        assert_eq!(error.to_string(), "too large to double");
    }

    #[tokio::test]
    async fn parameters_of_another_shape_fail_for_good_and_are_named() {
        for (parameters, named) in [(json!({ "nubmer": 1 }), "nubmer"), (json!({}), "number"), (json!(7), "7")] {
            let error = run(parameters).await.unwrap_err();
            assert!(!error.is_retryable());
            assert!(error.to_string().contains(named) && error.to_string().contains("test.double"), "{error}");
        }
    }

    #[test]
    fn a_name_is_given_once() {
        let mut registry = registry();
        assert_eq!(registry.register(Double), Err(NameTaken { name: "test.double" }));
        assert_eq!(registry.names().collect::<Vec<_>>(), ["test.double"]);
        assert!(registry.get("test.other").is_none());
    }
}
