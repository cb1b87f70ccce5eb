//! What can go wrong with a submission.

use std::fmt;

use forecastle_protos::v1;

/// What was waited for when the time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// A free channel of the pool.
    Channel,
    /// The broker's confirm. It may have the message or not.
    Confirm,
    /// The frontend's `accepted` reply.
    Accepted,
    /// The frontend's `finished` reply.
    Finished,
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Channel => "a free channel",
            Self::Confirm => "the broker's confirm",
            Self::Accepted => "the frontend's `accepted` reply",
            Self::Finished => "the frontend's `finished` reply",
        })
    }
}

/// Why a submission, or waiting for its replies, failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The options are unusable; nothing was tried.
    #[error("client option `{field}`: {reason}")]
    InvalidOptions {
        /// The field of [`ClientOptions`](crate::ClientOptions).
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The request cannot be sent as it is; nothing was sent.
    #[error("request field `{field}`: {reason}")]
    InvalidRequest {
        /// The field of the request.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// There is no connection to the broker. Nothing was sent.
    #[error("cannot reach the broker at {address}: {reason}")]
    Unreachable {
        /// Host, port and virtual host, without credentials.
        address: String,
        /// The last attempt's words.
        reason: String,
    },
    /// The broker does not let this user, or not into this virtual host.
    #[error("the broker at {address} refuses this user or virtual host: {reason}")]
    NotAllowed {
        /// Host, port and virtual host, without credentials.
        address: String,
        /// The broker's words.
        reason: String,
    },
    /// There is no queue for requests: the broker returned the message and has nothing of it.
    #[error("there is no queue `{queue}` on this broker: no frontend has run there yet; start one, then submit again")]
    NoFrontend {
        /// The queue.
        queue: String,
    },
    /// The queue for requests is full: the broker refused the message and has nothing of it.
    #[error("the broker refused the request since the queue `{queue}` is full; submit again later (key `{key}`)")]
    Full {
        /// The queue.
        queue: String,
        /// The idempotency key to submit again with.
        key: String,
    },
    /// The connection went before the answer came: the broker, or the frontend, may have the request or not.
    #[error("lost the connection to the broker ({reason}); the same request may be submitted again with key `{key}`")]
    ConnectionLost {
        /// The idempotency key to submit again with.
        key: String,
        /// What happened to the connection.
        reason: String,
    },
    /// The time for waiting was up. What was sent stays sent.
    #[error("{awaited} did not come in time; the same request may be submitted again with key `{key}`")]
    Timeout {
        /// What was waited for.
        awaited: Awaited,
        /// The idempotency key to submit again with.
        key: String,
    },
    /// The frontend refused the request, and will refuse it the next time.
    #[error("the request was rejected: {} ({}{}{})", .0.message, .0.code, if .0.field.is_empty() { "" } else { ", " }, .0.field)]
    Rejected(v1::ErrorDetail),
    /// A reply came that is no [`v1::Reply`]: client and frontend are of different versions.
    #[error("the reply to key `{key}` cannot be read: {reason}")]
    UnreadableReply {
        /// The idempotency key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

impl Error {
    /// True if the same request may be submitted again, with the same idempotency key, without anybody changing
    /// anything: it will be the same request to the frontend.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Full { .. } | Self::ConnectionLost { .. } | Self::Timeout { .. } => true,
            Self::InvalidOptions { .. }
            | Self::InvalidRequest { .. }
            | Self::NotAllowed { .. }
            | Self::NoFrontend { .. }
            | Self::Rejected(_)
            | Self::UnreadableReply { .. }
            | Self::Closed => false,
        }
    }

    /// From lapin, while connecting to `address`.
    pub(crate) fn connecting(address: &str, error: &lapin::Error) -> Self {
        // What RabbitMQ closes a connection with: 403 for a bad login, 530 for a virtual host that is not there or
        // not for this user.
        const REFUSALS: [u16; 2] = [403, 530];
        let (address, reason) = (address.to_owned(), error.to_string());
        match error.kind() {
            lapin::ErrorKind::ProtocolError(told) if REFUSALS.contains(&told.get_id()) => {
                Self::NotAllowed { address, reason }
            }
            _ => Self::Unreachable { address, reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_reads_as_one_sentence_with_code_and_field() {
        let detail = |field: &str| v1::ErrorDetail {
            code: "invalid-parameter".to_owned(),
            message: "level is above 9".to_owned(),
            field: field.to_owned(),
        };
        let text = Error::Rejected(detail("parameters.level")).to_string();
        assert_eq!(text, "the request was rejected: level is above 9 (invalid-parameter, parameters.level)");
        let text = Error::Rejected(detail("")).to_string();
        assert_eq!(text, "the request was rejected: level is above 9 (invalid-parameter)");
    }
}
