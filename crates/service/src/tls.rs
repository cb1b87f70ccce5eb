//! TLS on the side that listens: what a server shows of itself.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

/// How long a client may take for the handshake.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// Handshakes at a time; who comes then waits in the backlog of the socket.
const HANDSHAKES: usize = 64;

/// What the server shows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsOptions {
    /// PEM: the server's certificate, then those between it and the authority's.
    pub certificate_file: PathBuf,
    /// PEM: the certificate's private key.
    pub key_file: PathBuf,
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or is something else.
    #[error("{option} {path} cannot be read as PEM: {source}", path = path.display())]
    Unreadable {
        /// The option that names it.
        option: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file has nothing in it.
    #[error("{option} {path} has no certificate", path = path.display())]
    NoCertificate {
        /// The option that names it.
        option: String,
        /// The file.
        path: PathBuf,
    },
    /// The files do not belong together.
    #[error("{option}: certificate and key do not go together: {reason}")]
    Mismatch {
        /// The table of options.
        option: String,
        /// The library's words.
        reason: String,
    },
}

impl TlsOptions {
    /// Reads the files. `table` is where these options stand in the configuration, for errors.
    pub fn acceptor(&self, table: &str) -> Result<TlsAcceptor, TlsError> {
        let unreadable = |name: &str, path: &Path, source| TlsError::Unreadable {
            option: format!("{table}.{name}"),
            path: path.to_owned(),
            source,
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate_file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| unreadable("certificate_file", &self.certificate_file, source))?;
        if chain.is_empty() {
            let option = format!("{table}.certificate_file");
            return Err(TlsError::NoCertificate { option, path: self.certificate_file.clone() });
        }
        let private = PrivateKeyDer::from_pem_file(&self.key_file)
            .map_err(|source| unreadable("key_file", &self.key_file, source))?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private));
        let mut config =
            config.map_err(|error| TlsError::Mismatch { option: table.to_owned(), reason: error.to_string() })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// A listener of which only connections come that have shaken hands: one that is slow holds up no other.
pub(crate) struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    /// Ends with this listener.
    _accepting: JoinSet<()>,
}

impl TlsListener {
    pub(crate) fn new(listener: TcpListener, acceptor: TlsAcceptor) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(1);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, acceptor, sender));
        Ok(Self { address, ready, _accepting: accepting })
    }
}

async fn accept(
    mut listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        // axum's own way of accepting: it waits after errors, and never ends.
        let (stream, peer) = Listener::accept(&mut listener).await;
        while handshakes.try_join_next().is_some() {}
        if handshakes.len() >= HANDSHAKES {
            handshakes.join_next().await;
        }
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        handshakes.spawn(async move {
            match tokio::time::timeout(HANDSHAKE_PATIENCE, acceptor.accept(stream)).await {
                // An error means that nobody listens any more.
                Ok(Ok(stream)) => drop(ready.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS with a client"),
                Err(_) => tracing::debug!(%peer, "a client did not finish TLS's handshake in time"),
            }
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // Accepting ends only with this listener.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
