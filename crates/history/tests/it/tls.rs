//! ClickHouse behind TLS, with certificates of the test's own.

use std::path::PathBuf;
use std::sync::Arc;

use forecastle_history::{Error, History, HistoryOptions, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use uuid::Uuid;

use crate::database::TestDatabase;
use crate::sample_runs::run;

/// An authority, and who it vouches for.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn vouch_for(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Writes `client.pem` and `client.key`.
    fn write_client(&self) {
        let (certificate, key) = self.vouch_for("sink");
        std::fs::write(self.file("client.pem"), certificate.pem()).unwrap();
        std::fs::write(self.file("client.key"), key.serialize_pem()).unwrap();
    }
}

/// Speaks TLS to whom `authority` vouches for, and plain HTTP to ClickHouse.
struct Terminator {
    url: String,
    task: JoinHandle<()>,
}

impl Terminator {
    async fn start(upstream: &str, authority: &Authority) -> Self {
        let upstream = upstream.strip_prefix("http://").expect("tests use plain HTTP").to_owned();
        let (certificate, key) = authority.vouch_for("localhost");
        let mut roots = RootCertStore::empty();
        roots.add(authority.issuer.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let task = tokio::spawn(async move {
            // Dropped with this task, and every connection with it.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
                connections.spawn(async move {
                    // Who does not trust the certificate breaks off.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let mut server = TcpStream::connect(upstream).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { url, task }
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn rows_travel_over_tls_between_those_who_trust_each_other_only() {
    let database = TestDatabase::new().await;
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.write_client();
    stranger.write_client();
    let server = Terminator::start(&database.options.url, &authority).await;
    let history = |ca: &Authority, client: Option<&Authority>| {
        let tls = Tls {
            ca_file: Some(ca.file("ca.pem")),
            client_cert_file: client.map(|who| who.file("client.pem")),
            client_key_file: client.map(|who| who.file("client.key")),
        };
        History::new(HistoryOptions { url: server.url.clone(), tls: Some(tls), ..database.options.clone() }).unwrap()
    };
    let request = Uuid::now_v7();
    history(&authority, Some(&authority)).writer().insert_runs(&[run(request, 0)]).await.unwrap();
    assert_eq!(database.history.count_runs(Some(request)).await.unwrap(), 1);
    for untrusted in
        [history(&stranger, Some(&authority)), history(&authority, Some(&stranger)), history(&authority, None)]
    {
        let error = untrusted.writer().insert_runs(&[run(request, 1)]).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    }
    assert_eq!(database.history.count_runs(Some(request)).await.unwrap(), 1);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    std::fs::write(authority.file("empty.pem"), "").unwrap();
    let with = |url: &str, tls: Tls| {
        let options = HistoryOptions { url: url.to_owned(), tls: Some(tls), ..HistoryOptions::default() };
        History::new(options).err().map(|error| error.to_string())
    };
    let https = "https://history.example:8443";
    let trusting = |name: &str| Tls { ca_file: Some(authority.file(name)), ..Tls::default() };
    assert_eq!(with(https, trusting("ca.pem")), None);
    for name in ["empty.pem", "gone.pem"] {
        let error = with(https, trusting(name)).unwrap();
        assert!(error.contains("tls.ca_file") && error.contains(name), "{error}");
    }
    let half = Tls { client_cert_file: Some(authority.file("ca.pem")), ..Tls::default() };
    assert!(with(https, half).unwrap().contains("go together"));
    assert!(with("http://history.example:8123", trusting("ca.pem")).unwrap().contains("https://"));
}
