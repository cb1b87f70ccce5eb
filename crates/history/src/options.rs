//! Where ClickHouse is, and how long history is kept.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;

/// A password that is never printed. [`fmt::Debug`] and [`Serialize`] write `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, to be handed on and not kept or printed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl JsonSchema for Password {
    fn schema_name() -> Cow<'static, str> {
        "Password".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "title": "text, never printed" })
    }
}

impl Serialize for Password {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// Files for TLS, all in PEM format.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Certificates of the only authorities that are trusted; the machine's own if this is missing.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate, followed by the intermediate ones. Together with `client_key_file`.
    pub client_cert_file: Option<PathBuf>,
    /// The key of that certificate.
    pub client_key_file: Option<PathBuf>,
}

/// The configuration of history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryOptions {
    /// ClickHouse's HTTP endpoint: `http://host:port` or `https://host:port`, without user and password.
    pub url: String,
    /// The database; made by the first migration. Letters, digits and `_`.
    pub database: String,
    /// The user. Without one, ClickHouse's `default`.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Password>,
    /// Whom to trust and who to be, for `https`. Without it the machine's own authorities are trusted.
    pub tls: Option<Tls>,
    /// Days that runs, plans, decisions and evaluations are kept after they were recorded; 0 keeps them for ever.
    pub retention_days: u32,
    /// Days that load samples are kept; 0 keeps them for ever.
    pub load_sample_retention_days: u32,
    /// Seconds that one statement or one batch may take, at least 1.
    pub timeout_seconds: u32,
    /// Seconds that connecting may take, at least 1.
    pub connect_timeout_seconds: u32,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:18123".to_owned(),
            database: "forecastle".to_owned(),
            user: None,
            password: None,
            tls: None,
            retention_days: 180,
            load_sample_retention_days: 14,
            timeout_seconds: 30,
            connect_timeout_seconds: 5,
        }
    }
}

impl HistoryOptions {
    /// Checks everything that can be checked without connecting.
    pub fn validate(&self) -> Result<(), Error> {
        self.validate_url()?;
        let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let name = self.database.as_bytes();
        if name.is_empty() || name.len() > 64 || name[0].is_ascii_digit() || !name.iter().copied().all(letters) {
            return Err(wrong(
                "database",
                "it is a name of at most 64 letters, digits and _, not beginning with a digit",
            ));
        }
        if self.timeout_seconds == 0 || self.connect_timeout_seconds == 0 {
            return Err(wrong("timeout_seconds and connect_timeout_seconds", "each is at least 1"));
        }
        if let Some(tls) = &self.tls {
            if !self.url.starts_with("https://") {
                return Err(wrong("tls", "the URL does not begin with https://"));
            }
            if tls.client_cert_file.is_some() != tls.client_key_file.is_some() {
                return Err(wrong("tls", "client_cert_file and client_key_file go together"));
            }
        }
        if self.password.is_some() && self.user.is_none() {
            return Err(wrong("user", "there is a password, but no user"));
        }
        Ok(())
    }

    /// The messages do not repeat the URL: it may have a password in it.
    fn validate_url(&self) -> Result<(), Error> {
        let rest = self.url.strip_prefix("http://").or_else(|| self.url.strip_prefix("https://"));
        let rest = rest.ok_or_else(|| wrong("url", "it begins with neither http:// nor https://"))?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(wrong("url", "user and password do not belong there; set `user` and `password`"));
        }
        if rest.contains(['?', '#']) {
            return Err(wrong("url", "it has parameters; set `database` for the database"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok()),
            _ => (authority, Some(0)),
        };
        let blank = authority.chars().any(|c| c.is_whitespace() || c.is_control());
        if host.is_empty() || port.is_none() || blank {
            return Err(wrong("url", "it has no host, or its port is none"));
        }
        Ok(())
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.into())
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_seconds.into())
    }
}

fn wrong(field: &'static str, reason: &'static str) -> Error {
    Error::Configuration { field, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_url(url: &str) -> HistoryOptions {
        HistoryOptions { url: url.to_owned(), ..HistoryOptions::default() }
    }

    #[test]
    fn the_defaults_and_usual_urls_are_valid() {
        HistoryOptions::default().validate().unwrap();
        for url in
            ["https://clickhouse.example:8443", "http://history", "http://[::1]:8123", "http://[::1]", "http://h:1/p"]
        {
            with_url(url).validate().unwrap_or_else(|error| panic!("{url}: {error}"));
        }
    }

    #[test]
    fn unusable_urls_are_refused_without_repeating_a_password() {
        for url in [
            "",
            "clickhouse:8123",
            "http://",
            "http://:8123",
            "http://h:99999",
            "http://h:x",
            "http://a b",
            "http://user:hunter2@h:8123",
            "http://h:8123/?password=hunter2",
            "http://h#hunter2",
        ] {
            let error = with_url(url).validate().unwrap_err();
            assert!(error.to_string().contains("url") && !error.to_string().contains("hunter2"), "{url}: {error}");
            assert!(!error.is_retryable());
        }
    }

    #[test]
    fn names_timeouts_and_lonely_passwords_are_refused() {
        let default = HistoryOptions::default;
        for options in [
            HistoryOptions { database: "a; DROP DATABASE b".to_owned(), ..default() },
            HistoryOptions { database: String::new(), ..default() },
            HistoryOptions { database: "1st".to_owned(), ..default() },
            HistoryOptions { timeout_seconds: 0, ..default() },
            HistoryOptions { password: Some(Password::new("x")), ..default() },
        ] {
            assert!(options.validate().is_err(), "{options:?}");
        }
    }

    #[test]
    fn the_password_is_never_printed_and_unknown_keys_are_refused() {
        let json = r#"{"user": "analyst", "password": "hunter2"}"#;
        let options: HistoryOptions = serde_json::from_str(json).unwrap();
        assert_eq!(options.password.as_ref().map(Password::expose), Some("hunter2"));
        assert!(!format!("{options:?}{}", serde_json::to_string(&options).unwrap()).contains("hunter2"));
        assert!(serde_json::from_str::<HistoryOptions>(r#"{"pasword": "x"}"#).is_err());
    }
}
