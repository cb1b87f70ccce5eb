//! A typed task, and how it fails.

use std::io;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;

/// Any error that can cross threads.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a task failed. The message is shown to whoever submitted the request.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// It may succeed another time: the unit's retry budget decides whether it is tried again.
    #[error("{0}")]
    Retryable(#[source] BoxError),
    /// It would fail again, however often it is tried.
    #[error("{0}")]
    Permanent(#[source] BoxError),
}

impl TaskError {
    /// It may succeed another time.
    pub fn retryable(why: impl Into<BoxError>) -> Self {
        Self::Retryable(why.into())
    }

    /// It would fail again.
    pub fn permanent(why: impl Into<BoxError>) -> Self {
        Self::Permanent(why.into())
    }

    /// True if it may succeed another time.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Retryable(_))
    }
}

/// I/O may succeed another time. Where it cannot (a file that must exist), say so with [`TaskError::permanent`].
impl From<io::Error> for TaskError {
    fn from(error: io::Error) -> Self {
        Self::retryable(error)
    }
}

/// Asynchronous work inside the worker's process. One value serves all runs, many of them at once.
///
/// A task that is stopped (cancelled, timed out, preempted, drained) sees it through [`Context::cancellation`] and has
/// a moment to end; then its future is dropped at its next await. So long computations belong in
/// [`Context::blocking`] and look at the token now and then. What it kept with [`Context::keep_checkpoint`] by then, the
/// next attempt finds, if this one was drained or preempted. A panic fails that run alone, as an error of the task.
#[async_trait]
pub trait Task: Send + Sync + 'static {
    /// The name that units of the catalogue use: `a-z`, `0-9`, `-`, `_`, in parts joined by dots. Names that start
    /// with `forecastle.` are taken.
    const NAME: &'static str;

    /// The request's parameters. Unknown ones are ignored unless the type refuses them; what does not fit fails the
    /// run for good and names the parameter.
    type Parameters: DeserializeOwned + Send;

    /// A small result (at most 64 KiB as JSON), which the ledger keeps and later stages see. Large results are files
    /// in [`Context::output`].
    type Output: Serialize + Send;

    /// Runs once. Attempts can repeat and can overlap after failures, so effects outside the run's own folders must
    /// bear being repeated.
    async fn run(&self, parameters: Self::Parameters, context: &Context) -> Result<Self::Output, TaskError>;
}
