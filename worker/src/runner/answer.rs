//! How a typed task ended, wherever it ran.

use forecastle_protos::v1::Outcome;
use forecastle_task::TaskError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinError;

use crate::runner::verdict::Verdict;

/// The longest small result, as JSON.
const LONGEST_RESULT: usize = 64 << 10;

/// How a typed task ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Its small result; null is none.
    Succeeded(Value),
    /// It may succeed another time.
    Retryable(String),
    /// It would fail again.
    Permanent(String),
}

impl Answer {
    /// From the end of a task of the runtime, in which a panic is an answer.
    pub(crate) fn of(ended: Result<Result<Value, TaskError>, JoinError>) -> Self {
        match ended {
            Ok(Ok(value)) => Self::Succeeded(value),
            Ok(Err(error)) if error.is_retryable() => Self::Retryable(error.to_string()),
            Ok(Err(error)) => Self::Permanent(error.to_string()),
            Err(error) => Self::Retryable(match error.try_into_panic() {
                Ok(panic) => {
                    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                    format!("the task panicked: {}", text.as_deref().unwrap_or("without a message"))
                }
                Err(_) => "the task was aborted".to_owned(),
            }),
        }
    }

    /// The verdict, and the small result; empty if there is none.
    pub(crate) fn judge(self) -> (Verdict, String) {
        let failed = |outcome, error: String| (Verdict::failed(outcome, error), String::new());
        match self {
            Self::Succeeded(value) => {
                let result = if value.is_null() { String::new() } else { value.to_string() };
                if result.len() > LONGEST_RESULT {
                    let error = format!(
                        "the result has {} bytes, and at most {LONGEST_RESULT} are taken: write a file",
                        result.len()
                    );
                    return failed(Outcome::PermanentError, error);
                }
                (Verdict::succeeded(0), result)
            }
            Self::Retryable(error) => failed(Outcome::TaskError, error),
            Self::Permanent(error) => failed(Outcome::PermanentError, error),
        }
    }
}
