//! What an error of lapin's means here.

use lapin::ErrorKind;

/// AMQP's reply codes that say nothing about the request: the connection was closed by an operator or a shutdown, the
/// server is out of something, or broken.
const NOT_ABOUT_THE_REQUEST: [u16; 3] = [320, 506, 541];

/// AMQP's reply code for a name that is not there.
pub(crate) const NOT_FOUND: u16 = 404;

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The broker understood it and said no.
    Refused {
        /// AMQP's reply code.
        code: u16,
        /// The broker's words.
        reason: String,
    },
    /// The channel or the connection went, so that it may succeed on the next.
    Lost(String),
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(told) if !NOT_ABOUT_THE_REQUEST.contains(&told.get_id()) => {
                Self::Refused { code: told.get_id(), reason: told.get_message().to_string() }
            }
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { reason, .. } | Self::Lost(reason) => f.write_str(reason),
        }
    }
}
