//! What went wrong: an exit status, a sentence, and what to do about it.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use forecastle_protos::ids::RequestId;
use forecastle_protos::v1::{self, RequestState};

use crate::output::{Output, printable};

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line, or a file that it names, is wrong.
    #[error("{0}")]
    Usage(String),
    /// No answer from the frontend.
    #[error("cannot reach the frontend at {url}: {reason}")]
    Unreachable { url: String, reason: String },
    /// The frontend, or something before it, cannot answer now.
    #[error("the frontend cannot answer now: {}", sentence(.detail))]
    Unavailable { detail: v1::ErrorDetail, retry_after: Option<Duration> },
    /// The token is missing or opens nothing.
    #[error("{}", sentence(.detail))]
    Unauthorised { detail: v1::ErrorDetail, token: String },
    /// The frontend refuses what was asked.
    #[error("{}", sentence(.0))]
    Rejected(v1::ErrorDetail),
    /// The answer is not what this program understands.
    #[error("the frontend's answer cannot be understood: {0}")]
    Misunderstood(String),
    /// The request ended, but did not succeed. The command has said so already.
    #[error("request {id} {}", state_name(*.state))]
    Ended { id: String, state: RequestState },
    /// Checks of the doctor failed. It has said so already.
    #[error("{failed} of the checks failed")]
    Unhealthy { failed: usize, unreachable: bool },
    /// Ctrl-C while following a request.
    #[error("interrupted; request {0} goes on")]
    Interrupted(RequestId),
    /// Ctrl-C, or a signal, where nothing goes on that could be told of.
    #[error("interrupted")]
    Stopped,
    /// Standard output does not take the answer.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// As `--help` tells.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            // Whoever reads has seen enough (`| head`).
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Ended { .. } | Self::Unhealthy { unreachable: false, .. } | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. }
            | Self::Unavailable { .. }
            | Self::Unauthorised { .. }
            | Self::Misunderstood(_)
            | Self::Unhealthy { .. } => 3,
            Self::Rejected(_) => 4,
            Self::Interrupted(_) | Self::Stopped => 130,
        }
    }

    /// True if the same may go well a little later.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unavailable { .. })
    }

    /// How long the frontend asks to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What to do about it.
    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { url, reason } if url.starts_with("https:") && reason.contains("certificate") => {
                Some("if the certificate comes from an authority of your own, name its file with --ca-file".to_owned())
            }
            Self::Unreachable { .. } => Some(
                "is the frontend running, and is --url (FORECASTLE_URL) right? `forecastle doctor` looks".to_owned(),
            ),
            Self::Unavailable { .. } => {
                Some("try again later; `forecastle doctor` looks at what is missing".to_owned())
            }
            Self::Unauthorised { token, .. } => Some(token.clone()),
            Self::Rejected(detail) => match &*detail.code {
                "unknown-request-type" => Some("`forecastle types` lists what can be asked for".to_owned()),
                "invalid-parameter" => Some("`forecastle types NAME` shows the parameters".to_owned()),
                "idempotency-conflict" => {
                    Some("--key was used for another request; choose another key, or none".to_owned())
                }
                "unknown-request" => Some("`forecastle list` shows this token's requests".to_owned()),
                "unknown-shard" => Some("shards are named <request>.<stage>.<index>, both numbers from 0".to_owned()),
                "not-dead" => {
                    Some("`forecastle dead list` shows the dead; `forecastle explain SHARD` any shard".to_owned())
                }
                "no-run-ended" => Some("`forecastle explain SHARD` says where it is".to_owned()),
                "invalid-input" => {
                    Some("`forecastle types NAME` says what it reads; --input or --items name it".to_owned())
                }
                "input-not-allowed" => {
                    Some("the frontend's option input.allowed_roots says what it may read".to_owned())
                }
                _ => None,
            },
            Self::Misunderstood(_) => Some(
                "is this the frontend's URL, and has it this program's version? `forecastle doctor` compares"
                    .to_owned(),
            ),
            Self::Interrupted(id) => {
                Some(format!("to watch it: forecastle watch {id}\nto end it:   forecastle cancel {id}"))
            }
            Self::Usage(_) | Self::Ended { .. } | Self::Unhealthy { .. } | Self::Stopped | Self::Output(_) => None,
        }
    }

    /// Says it on standard error.
    pub(crate) fn report(&self, output: Output) {
        match self {
            // Said already, or nobody listens.
            Self::Ended { .. } | Self::Unhealthy { .. } | Self::Stopped => return,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return,
            Self::Interrupted(_) => output.note(&self.to_string()),
            _ => output.note(&format!("error: {self}")),
        }
        if let Some(hint) = self.hint() {
            output.note(&hint);
        }
    }
}

/// `message (code, field)`.
pub(crate) fn sentence(detail: &v1::ErrorDetail) -> String {
    let message = if detail.message.is_empty() { "no reason was given" } else { &detail.message };
    let place = [&detail.code, &detail.field].into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>();
    let place = if place.is_empty() { String::new() } else { format!(" ({})", place.join(", ")) };
    printable(&format!("{message}{place}"))
}

/// A state as people and the API's query spell it.
pub(crate) fn state_name(state: RequestState) -> &'static str {
    match state {
        RequestState::Unspecified => "unknown",
        RequestState::Admitted => "admitted",
        RequestState::Running => "running",
        RequestState::Succeeded => "succeeded",
        RequestState::Failed => "failed",
        RequestState::Cancelled => "cancelled",
    }
}

/// True for states that a request does not leave.
pub(crate) fn has_ended(state: RequestState) -> bool {
    matches!(state, RequestState::Succeeded | RequestState::Failed | RequestState::Cancelled)
}

/// An error and what caused it, in one line, each said once.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(code: &str, field: &str) -> v1::ErrorDetail {
        v1::ErrorDetail { code: code.to_owned(), message: "level is above 9".to_owned(), field: field.to_owned() }
    }

    #[test]
    fn typed_errors_read_message_code_field() {
        assert_eq!(
            Failure::Rejected(detail("invalid-parameter", "parameters.level")).to_string(),
            "level is above 9 (invalid-parameter, parameters.level)"
        );
        assert_eq!(
            Failure::Rejected(detail("invalid-parameter", "")).to_string(),
            "level is above 9 (invalid-parameter)"
        );
        assert_eq!(sentence(&v1::ErrorDetail::default()), "no reason was given");
    }

    #[test]
    fn exit_statuses_are_those_of_the_help() {
        let id = RequestId::new();
        let unreachable = Failure::Unreachable { url: "http://x".to_owned(), reason: "refused".to_owned() };
        let ended = Failure::Ended { id: id.to_string(), state: RequestState::Failed };
        assert_eq!(ended.exit_status(), 1);
        assert_eq!(Failure::Usage(String::new()).exit_status(), 2);
        assert_eq!(unreachable.exit_status(), 3);
        let unauthorised = Failure::Unauthorised { detail: detail("unauthenticated", ""), token: String::new() };
        assert_eq!(unauthorised.exit_status(), 3);
        assert_eq!(Failure::Rejected(detail("x", "")).exit_status(), 4);
        assert_eq!(Failure::Interrupted(id).exit_status(), 130);
        assert_eq!(Failure::Stopped.exit_status(), 130);
        assert_eq!(Failure::Output(io::ErrorKind::BrokenPipe.into()).exit_status(), 0);
        assert_eq!(Failure::Unhealthy { failed: 1, unreachable: true }.exit_status(), 3);
        assert_eq!(Failure::Unhealthy { failed: 1, unreachable: false }.exit_status(), 1);
    }

    #[test]
    fn an_interruption_says_how_to_watch_and_how_to_cancel() {
        let id = RequestId::new();
        let hint = Failure::Interrupted(id).hint().unwrap();
        assert!(hint.contains(&format!("forecastle watch {id}")) && hint.contains(&format!("forecastle cancel {id}")));
    }
}
