//! What can go wrong with ClickHouse, and whether trying again can help.

use std::path::PathBuf;
use std::time::Duration;

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options are unusable.
    #[error("history configuration: {field}: {reason}")]
    Configuration {
        /// The option.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file for TLS cannot be used.
    #[error("history configuration: {field}: {path}: {reason}", path = path.display())]
    Tls {
        /// The option.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A row that must not be written. The batch was not sent; without this row it may be.
    #[error("row {index} for {table} is wrong: {field}: {reason}")]
    InvalidRow {
        /// The table.
        table: &'static str,
        /// The row's place in the batch, from 0.
        index: usize,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// ClickHouse cannot be reached, or the connection broke. What was sent may have been done.
    #[error("cannot {operation}: ClickHouse at {address} cannot be reached")]
    Unreachable {
        /// What was being done.
        operation: String,
        /// The URL, which has no credentials.
        address: String,
        /// The client's error.
        #[source]
        source: clickhouse::error::Error,
    },
    /// ClickHouse did not answer in time. What was sent may have been done.
    #[error("cannot {operation}: ClickHouse at {address} did not answer within {timeout:?}")]
    TimedOut {
        /// What was being done.
        operation: String,
        /// The URL, which has no credentials.
        address: String,
        /// The time allowed.
        timeout: Duration,
    },
    /// ClickHouse answered with an error.
    #[error("cannot {operation}: ClickHouse at {address} refused: {message}")]
    Refused {
        /// What was being done.
        operation: String,
        /// The URL, which has no credentials.
        address: String,
        /// ClickHouse's number of the error; `None` if something else answered, such as a proxy.
        code: Option<u32>,
        /// Its words.
        message: String,
    },
    /// The tables and this program do not fit, or the client failed in another way.
    #[error("cannot {operation}: the client of ClickHouse at {address} failed")]
    Client {
        /// What was being done.
        operation: String,
        /// The URL, which has no credentials.
        address: String,
        /// The client's error.
        #[source]
        source: clickhouse::error::Error,
    },
    /// A migration that was applied is not the one this program knows.
    #[error(
        "migration {version} ({name}) of database {database} was applied with checksum {applied}, but this program has \
         {known}: the database belongs to another build"
    )]
    ChecksumMismatch {
        /// The database.
        database: String,
        /// The migration.
        version: u32,
        /// Its name here.
        name: String,
        /// What the database has.
        applied: String,
        /// What the program has.
        known: String,
    },
    /// The database was migrated by a newer program.
    #[error("database {database} has schema version {found}, but this program knows only {known}: use a newer program")]
    NewerSchema {
        /// The database.
        database: String,
        /// What the database has.
        found: u32,
        /// What the program has.
        known: u32,
    },
}

/// Errors of ClickHouse that pass by themselves (their names are those of its `ErrorCodes.cpp`).
const PASSING: [u32; 20] = [
    159, // TIMEOUT_EXCEEDED
    160, // TOO_SLOW
    173, // CANNOT_ALLOCATE_MEMORY
    202, // TOO_MANY_SIMULTANEOUS_QUERIES
    203, // NO_FREE_CONNECTION
    209, // SOCKET_TIMEOUT
    210, // NETWORK_ERROR
    236, // ABORTED, as when it shuts down
    241, // MEMORY_LIMIT_EXCEEDED
    242, // TABLE_IS_READ_ONLY
    243, // NOT_ENOUGH_SPACE
    252, // TOO_MANY_PARTS
    319, // UNKNOWN_STATUS_OF_INSERT
    394, // QUERY_WAS_CANCELLED
    425, // SYSTEM_ERROR
    439, // CANNOT_SCHEDULE_TASK
    473, // DEADLOCK_AVOIDED
    692, // TOO_MANY_MUTATIONS
    745, // SERVER_OVERLOADED
    999, // KEEPER_EXCEPTION
];

impl Error {
    /// True if the same call may succeed later without anybody changing anything. Calls are safe to repeat.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Refused { code, .. } => code.is_none_or(|code| PASSING.contains(&code)),
            Self::Configuration { .. }
            | Self::Tls { .. }
            | Self::InvalidRow { .. }
            | Self::Client { .. }
            | Self::ChecksumMismatch { .. }
            | Self::NewerSchema { .. } => false,
        }
    }

    pub(crate) fn from_client(operation: &str, address: &str, source: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error as Source;
        let (operation, address) = (operation.to_owned(), address.to_owned());
        match source {
            Source::BadResponse(message) => {
                let code = exception_code(&message);
                // The words of a proxy can be a whole page.
                let message = message.chars().take(2000).collect();
                Self::Refused { operation, address, code, message }
            }
            // An answer that ends in the middle or cannot be unpacked is a broken connection too.
            Source::Network(_) | Source::TimedOut | Source::Decompression(_) | Source::NotEnoughData => {
                Self::Unreachable { operation, address, source }
            }
            source => Self::Client { operation, address, source },
        }
    }
}

/// The number in `Code: 60. DB::Exception: …`.
fn exception_code(message: &str) -> Option<u32> {
    let (_, rest) = message.split_once("Code: ")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &str) -> Error {
        Error::from_client("ask", "http://h", clickhouse::error::Error::BadResponse(message.to_owned()))
    }

    #[test]
    fn what_passes_by_itself_is_retryable_and_what_does_not_is_not() {
        assert!(refused("Code: 241. DB::Exception: Memory limit exceeded").is_retryable());
        assert!(refused("502 Bad Gateway").is_retryable(), "a proxy whose ClickHouse is away");
        assert!(!refused("Code: 516. DB::Exception: Authentication failed").is_retryable());
        assert!(!refused("Code: 60. DB::Exception: Unknown table").is_retryable());
        assert!(Error::from_client("ask", "http://h", clickhouse::error::Error::TimedOut).is_retryable());
        let mismatch = clickhouse::error::Error::SchemaMismatch("x".to_owned());
        assert!(!Error::from_client("ask", "http://h", mismatch).is_retryable());
    }

    #[test]
    fn codes_are_read_from_messages() {
        assert_eq!(exception_code("Code: 60. DB::Exception: x"), Some(60));
        assert_eq!(exception_code("Code: "), None);
        assert_eq!(exception_code("Code: 99999999999"), None);
        assert_eq!(exception_code(""), None);
    }
}
