//! Where the broker is, and how long to wait for what.

use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use forecastle_protos::names;
use lapin::uri::AMQPUri;

use crate::Error;

/// How a [`Client`](crate::Client) connects and waits.
#[derive(Clone)]
pub struct ClientOptions {
    /// `amqp://user:password@host:port/vhost`, or `amqps://…` for TLS against the machine's certificate authorities
    /// (`SSL_CERT_FILE` names others). `?heartbeat=10` and the like are understood.
    pub url: String,
    /// The queue that requests go to. Frontends read [`names::REQUESTS`], the default.
    pub requests_queue: String,
    /// The name of the connections in the broker's console.
    pub name: String,
    /// The most connections that publish, at least 1. (One more receives replies.)
    pub connections: usize,
    /// The most channels that publish, at least 1: as many submissions wait for their confirm at the same time.
    pub channels: usize,
    /// How long one attempt to connect, or to open a channel, may take, and how long a submission waits while the
    /// connection is down.
    pub connect_timeout: Duration,
    /// How long a submission waits for a channel while all are taken.
    pub channel_timeout: Duration,
    /// How long a submission waits for the broker's confirm. The broker gives none while it is out of memory or disk.
    pub confirm_timeout: Duration,
    /// How long [`Submission::accepted`](crate::Submission::accepted) waits.
    pub accepted_timeout: Duration,
    /// How long [`Submission::finished`](crate::Submission::finished) waits; `None` is as long as it takes.
    pub finished_timeout: Option<Duration>,
}

impl ClientOptions {
    /// The defaults for a broker: 1 connection, 16 channels, 10 s to connect, 30 s each for a channel, a confirm and
    /// acceptance.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            requests_queue: names::REQUESTS.to_owned(),
            name: "forecastle-client".to_owned(),
            connections: 1,
            channels: 16,
            connect_timeout: Duration::from_secs(10),
            channel_timeout: Duration::from_secs(30),
            confirm_timeout: Duration::from_secs(30),
            accepted_timeout: Duration::from_secs(30),
            finished_timeout: None,
        }
    }

    /// Checks everything, before the first connection. Answers where the broker is, without credentials.
    pub(crate) fn check(&self) -> Result<String, Error> {
        let invalid = |field, reason: String| Err(Error::InvalidOptions { field, reason });
        let Ok(uri) = AMQPUri::from_str(&self.url) else {
            // The parser's words could repeat the password.
            return invalid("url", "not of the form amqp://user:password@host:port/vhost".to_owned());
        };
        if self.requests_queue.is_empty() || self.requests_queue.len() > SHORT_STRING {
            return invalid("requests_queue", format!("a queue's name has 1 to {SHORT_STRING} bytes"));
        }
        for (field, number) in [("connections", self.connections), ("channels", self.channels)] {
            if number == 0 {
                return invalid(field, "at least 1 is needed".to_owned());
            }
        }
        for (field, timeout) in [
            ("connect_timeout", self.connect_timeout),
            ("channel_timeout", self.channel_timeout),
            ("confirm_timeout", self.confirm_timeout),
            ("accepted_timeout", self.accepted_timeout),
        ] {
            if timeout.is_zero() {
                return invalid(field, "must be longer than zero".to_owned());
            }
        }
        Ok(format!("{}:{} (virtual host {})", uri.authority.host, uri.authority.port, uri.vhost))
    }
}

/// The longest short string of AMQP, in bytes: names of queues, message ids.
pub(crate) const SHORT_STRING: usize = 255;

impl fmt::Debug for ClientOptions {
    /// Without the URL, which holds a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("requests_queue", &self.requests_queue)
            .field("name", &self.name)
            .field("connections", &self.connections)
            .field("channels", &self.channels)
            .field("connect_timeout", &self.connect_timeout)
            .field("channel_timeout", &self.channel_timeout)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("accepted_timeout", &self.accepted_timeout)
            .field("finished_timeout", &self.finished_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_in_messages_has_no_credentials() {
        let options = ClientOptions::new("amqp://fred:s3cret@broker.test:5673/%2f");
        assert_eq!(options.check().unwrap(), "broker.test:5673 (virtual host /)");
        assert!(!format!("{options:?}").contains("s3cret"));
    }

    #[test]
    fn bad_options_are_named_before_any_connection() {
        let good = ClientOptions::new("amqp://127.0.0.1");
        let field = |options: &ClientOptions| match options.check() {
            Err(Error::InvalidOptions { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        for url in ["", "http://127.0.0.1", "amqp://fred:s3cret@:x/", "127.0.0.1:5672"] {
            let options = ClientOptions::new(url);
            assert_eq!(field(&options), "url", "{url}");
            assert!(!options.check().unwrap_err().to_string().contains("s3cret"));
        }
        assert_eq!(field(&ClientOptions { requests_queue: "q".repeat(256), ..good.clone() }), "requests_queue");
        assert_eq!(field(&ClientOptions { channels: 0, ..good.clone() }), "channels");
        assert_eq!(field(&ClientOptions { connections: 0, ..good.clone() }), "connections");
        assert_eq!(field(&ClientOptions { confirm_timeout: Duration::ZERO, ..good }), "confirm_timeout");
    }
}
