//! Where RabbitMQ is and how patient to be.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forecastle_resources::Bytes;
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Error, limits};

/// `amqp://user:password@host:port/vhost`, or `amqps://` for TLS. The virtual host is URL-encoded: `/` is `%2f`.
///
/// [`fmt::Debug`] and [`Serialize`] write it without user and password. Reads a text, or `{ file = "path" }` for the
/// contents of that file without the end of its last line.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpUrl(String);

impl AmqpUrl {
    /// A URL; it is checked by [`Options::validate`].
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The parsed URL. The errors do not repeat it: it may have a password in it.
    pub(crate) fn parse(&self) -> Result<AMQPUri, Error> {
        let wrong = |reason: &str| {
            Error::Configuration(format!("url is not amqp://user:password@host:port/vhost or amqps://…: {reason}"))
        };
        // Before lapin's parser, one of whose messages repeats the whole URL.
        let Some((scheme, rest)) = self.0.split_once("://") else { return Err(wrong("it has no host")) };
        if scheme != "amqp" && scheme != "amqps" {
            return Err(wrong("its scheme is another"));
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if host.is_empty() || host.starts_with(':') {
            return Err(wrong("it has no host"));
        }
        let mut uri: AMQPUri = self.0.parse().map_err(|reason: String| wrong(&reason))?;
        // lapin reads an IPv6 address as localhost.
        if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            address.clone_into(&mut uri.authority.host);
        }
        Ok(uri)
    }

    fn without_credentials(&self) -> String {
        self.parse().map_or_else(
            |_| "<not a URL>".to_owned(),
            |uri| {
                let vhost = uri.vhost.replace('/', "%2f");
                format!("{}://{}/{vhost}", uri.scheme, address(&uri))
            },
        )
    }
}

/// Host and port.
pub(crate) fn address(uri: &AMQPUri) -> String {
    let (host, port) = (&uri.authority.host, uri.authority.port);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without_credentials())
    }
}

impl JsonSchema for AmqpUrl {
    fn schema_name() -> Cow<'static, str> {
        "AmqpUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "title": "URL" })
    }
}

impl Serialize for AmqpUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.without_credentials())
    }
}

impl<'de> Deserialize<'de> for AmqpUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a URL is a text in quotes or { file = \"path\" }")]
        enum Given {
            Text(String),
            InFile { file: PathBuf },
        }
        match Given::deserialize(deserializer)? {
            Given::Text(text) => Ok(Self(text)),
            Given::InFile { file } => match fs::read_to_string(&file) {
                Ok(text) => Ok(Self(text.trim_end_matches(['\r', '\n']).to_owned())),
                Err(error) => {
                    let file = file.display();
                    Err(de::Error::custom(format_args!("cannot read the URL in the file {file}: {error}")))
                }
            },
        }
    }
}

/// TLS beyond what the machine's certificate store gives; for `amqps://`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Certificates (PEM) of authorities to trust beside the machine's.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate chain (PEM).
    pub client_cert_file: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    pub client_key_file: Option<PathBuf>,
}

/// Where RabbitMQ is and how patient to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Where it is, and as whom to log in: `amqp://user:password@host:port/vhost`, or `amqps://` for TLS. The virtual
    /// host is URL-encoded: `/` is `%2f`. Printed without user and password.
    pub url: AmqpUrl,
    /// A name for the broker's console; ` publish` and ` consume` are appended.
    pub connection_name: String,
    /// TLS beyond the machine's certificate store, for `amqps://`.
    pub tls: Option<Tls>,
    /// Seconds to keep trying at the start, and for one attempt later; at least 1. After the first success the
    /// client reconnects for ever.
    pub connect_timeout_seconds: u32,
    /// Seconds between heartbeats; a dead connection is noticed within about two of them. At least 1.
    pub heartbeat_seconds: u16,
    /// The most seconds between two attempts to reconnect; at least 1.
    pub reconnect_interval_seconds: u32,
    /// Seconds that closing waits for outstanding confirms and for consumers to hand back what they hold.
    pub close_timeout_seconds: u32,
    /// The largest body that is published. The broker's own limit (16 MiB from 4.0) closes the channel.
    pub max_body: Bytes,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: AmqpUrl::new("amqp://127.0.0.1:5682/%2f"),
            connection_name: "forecastle".to_owned(),
            tls: None,
            connect_timeout_seconds: 30,
            heartbeat_seconds: 20,
            reconnect_interval_seconds: 5,
            close_timeout_seconds: 10,
            max_body: Bytes(limits::BODY_BYTES),
        }
    }
}

impl Options {
    /// The defaults, with this URL.
    pub fn to(url: impl Into<String>) -> Self {
        Self { url: AmqpUrl::new(url), ..Self::default() }
    }

    /// Checks everything that can be checked without connecting; files are read when connecting.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |reason: &str| Err(Error::Configuration(reason.to_owned()));
        let uri = self.url.parse()?;
        if self.connect_timeout_seconds == 0 || self.heartbeat_seconds == 0 || self.reconnect_interval_seconds == 0 {
            return wrong(
                "connect_timeout_seconds, heartbeat_seconds and reconnect_interval_seconds are each at least 1",
            );
        }
        let Some(tls) = &self.tls else { return Ok(()) };
        if uri.scheme != AMQPScheme::AMQPS {
            return wrong("there is a section tls, but the url is not amqps://");
        }
        if tls.client_cert_file.is_some() != tls.client_key_file.is_some() {
            return wrong("tls.client_cert_file and tls.client_key_file belong together");
        }
        Ok(())
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_seconds.into())
    }

    pub(crate) fn reconnect_interval(&self) -> Duration {
        Duration::from_secs(self.reconnect_interval_seconds.into())
    }

    pub(crate) fn close_timeout(&self) -> Duration {
        Duration::from_secs(self.close_timeout_seconds.into())
    }

    /// Reads the files of [`Tls`].
    pub(crate) fn tls_config(&self) -> Result<OwnedTLSConfig, Error> {
        let Some(tls) = &self.tls else { return Ok(OwnedTLSConfig::default()) };
        let cert_chain = match &tls.ca_file {
            Some(path) => Some(String::from_utf8(pem("tls.ca_file", path)?).map_err(|_| not_pem("tls.ca_file", path))?),
            None => None,
        };
        let identity = match (&tls.client_cert_file, &tls.client_key_file) {
            (Some(cert), Some(key)) => Some(OwnedIdentity::PKCS8 {
                pem: pem("tls.client_cert_file", cert)?,
                key: pem("tls.client_key_file", key)?,
            }),
            _ => None,
        };
        Ok(OwnedTLSConfig { identity, cert_chain })
    }
}

fn pem(field: &str, path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = fs::read(path)
        .map_err(|error| Error::Configuration(format!("{field}: cannot read {}: {error}", path.display())))?;
    // A file without a certificate would otherwise be trusted as "no more authorities", and fail far from its cause.
    if !bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        return Err(not_pem(field, path));
    }
    Ok(bytes)
}

fn not_pem(field: &str, path: &Path) -> Error {
    Error::Configuration(format!("{field}: {} is not in PEM format", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_neither_debugged_nor_serialised_nor_in_errors() {
        let options = Options::to("amqps://me:pa%2Fss@broker.example:5671/%2f?heartbeat=5");
        let seen = format!("{options:?} {}", serde_json::to_string(&options).unwrap());
        assert!(seen.contains("amqps://broker.example:5671/%2f"), "{seen}");
        assert!(!seen.contains("me:pa") && !seen.contains("ss@"), "{seen}");
        for url in ["amqp:me:pass", "http://me:pass@host", "amqp://me:pass@host:port", "amqp://me:pass@", "me:pass"] {
            let error = Options::to(url).validate().unwrap_err().to_string();
            assert!(error.contains("url is not amqp://"), "{error}");
            assert!(!error.contains("me:pass"), "{error}");
            assert!(!format!("{:?}", Options::to(url)).contains("pass"));
        }
    }

    #[test]
    fn the_default_survives_serialisation_and_unknown_keys_are_refused() {
        let text = serde_json::to_string(&Options::default()).unwrap();
        assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), Options::default());
        let error = serde_json::from_str::<Options>(r#"{"ulr": "amqp://x"}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `ulr`"));
    }

    #[test]
    fn an_ipv6_address_is_the_host() {
        let uri = AmqpUrl::new("amqp://[::1]:5700/%2f").parse().unwrap();
        assert_eq!((uri.authority.host.as_str(), address(&uri).as_str()), ("::1", "[::1]:5700"));
    }

    #[test]
    fn what_cannot_work_is_refused_before_connecting() {
        let refused = |change: &dyn Fn(&mut Options)| {
            let mut options = Options::to("amqps://host");
            change(&mut options);
            options.validate().unwrap_err().to_string()
        };
        assert!(refused(&|o| o.heartbeat_seconds = 0).contains("heartbeat_seconds"));
        assert!(refused(&|o| o.connect_timeout_seconds = 0).contains("connect_timeout_seconds"));
        let key = Tls { client_key_file: Some("key".into()), ..Tls::default() };
        assert!(refused(&|o| o.tls = Some(key.clone())).contains("belong together"));
        let plain = |o: &mut Options| (o.url, o.tls) = (AmqpUrl::new("amqp://host"), Some(Tls::default()));
        assert!(refused(&plain).contains("not amqps://"));
    }

    #[test]
    fn tls_files_that_are_missing_or_no_pem_are_named() {
        let tls = |ca: &str| Options {
            tls: Some(Tls { ca_file: Some(ca.into()), ..Tls::default() }),
            ..Options::to("amqps://host")
        };
        let error = tls("/does/not/exist").tls_config().unwrap_err().to_string();
        assert!(error.contains("tls.ca_file: cannot read /does/not/exist"), "{error}");
        let error = tls("Cargo.toml").tls_config().unwrap_err().to_string();
        assert!(error.contains("Cargo.toml is not in PEM format"), "{error}");
    }

    #[test]
    fn a_url_with_a_password_can_come_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        fs::write(&path, "amqp://me:pass@host/%2f\n").unwrap();
        let read = |value: serde_json::Value| serde_json::from_value::<Options>(serde_json::json!({ "url": value }));
        let options = read(serde_json::json!({ "file": path })).unwrap();
        assert_eq!(options.url, AmqpUrl::new("amqp://me:pass@host/%2f"));
        let missing = read(serde_json::json!({ "file": "/nowhere/url" })).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/url"), "{missing}");
        let wrong = read(serde_json::json!(["amqp://me:pass@host"])).unwrap_err().to_string();
        assert!(wrong.contains("a URL is") && !wrong.contains("pass"), "{wrong}");
    }
}
