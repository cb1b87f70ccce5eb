//! A task that does nothing: for measuring everything around it.

use forecastle_task::{Context, Task, TaskError, async_trait};
use serde::Deserialize;

/// `forecastle.noop`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noop;

/// Whatever parameters there are, they are ignored.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Ignored {}

#[async_trait]
impl Task for Noop {
    const NAME: &'static str = "forecastle.noop";
    type Parameters = Ignored;
    type Output = ();

    async fn run(&self, _: Ignored, _: &Context) -> Result<(), TaskError> {
        Ok(())
    }
}
