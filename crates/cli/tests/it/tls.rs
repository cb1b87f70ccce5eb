//! A frontend that speaks TLS, with a certificate of the test's own.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener;
use forecastle_protos::v1::RequestState;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

use crate::program::Program;
use crate::server::{ID, STATUS, Server, message, status, unknown_route};

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl TlsListener {
    /// With its certificate, which is its own authority.
    async fn new() -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }, made.cert.pem())
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, peer) = self.listener.accept().await.unwrap();
            // Who does not trust the certificate breaks off.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[tokio::test]
async fn over_tls_only_a_frontend_of_a_known_authority_is_told_the_token() {
    let (listener, certificate) = TlsListener::new().await;
    let (_, another) = TlsListener::new().await;
    let server = Server::on(listener, "https", |asked| match &*asked.what {
        STATUS => message(200, &status(RequestState::Running, 1)),
        _ => unknown_route(),
    });
    let program = Program::new(&server);
    program.put("ca.pem", &certificate);
    program.put("other.pem", &another);
    program.put("both.pem", &format!("{another}{certificate}"));
    for arguments in [&["status", ID, "--ca-file", "other.pem"][..], &["status", ID]] {
        let ran = program.run(arguments).await;
        assert!(ran.status != 0 && ran.stderr.contains("certificate"), "{ran:?}");
    }
    assert!(server.asked().is_empty(), "the token was sent to who knows whom");
    for file in ["ca.pem", "both.pem"] {
        let ran = program.run(&["status", ID, "--ca-file", file]).await;
        assert!(ran.status == 0 && ran.stdout.contains("running"), "{ran:?}");
    }
    let ran =
        Program::new(&server).with("FORECASTLE_CA_FILE", program.folder.path().join("ca.pem").display().to_string());
    assert_eq!(ran.run(&["status", ID]).await.status, 0);
}

#[tokio::test]
async fn a_ca_file_that_is_no_use_is_wrong_usage_and_named() {
    let server = Server::new(|_| unknown_route()).await;
    let program = Program::new(&server);
    program.put("empty.pem", "");
    for file in ["empty.pem", "missing.pem"] {
        let ran = program.run(&["status", ID, "--ca-file", file]).await;
        assert!(ran.status == 2 && ran.stderr.contains(file), "{ran:?}");
    }
    assert!(server.asked().is_empty());
}
