//! The configuration of the API.

use std::net::{Ipv4Addr, SocketAddr};

use forecastle_resources::Bytes;
use forecastle_service::TlsOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tokens::TokenOptions;

/// The API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpOptions {
    /// Address and port of the API; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The server's certificate. With it, only TLS is spoken.
    pub tls: Option<TlsOptions>,
    /// Larger bodies are refused.
    pub max_body: Bytes,
    /// Connections at a time, at least 1; more wait until one ends. Each event stream holds one.
    pub max_connections: u32,
    /// Who may come in. Without any, a token is made for the tenant `default` and kept in the data folder.
    pub tokens: Vec<TokenOptions>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            tls: None,
            max_body: Bytes::mib(1),
            max_connections: 1024,
            tokens: Vec::new(),
        }
    }
}
