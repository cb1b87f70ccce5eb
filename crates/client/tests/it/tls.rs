//! TLS: against a listener of the test's own that hands on to the broker, with a certificate of the test's own.

use std::process::Stdio;
use std::sync::Arc;

use forecastle_client::{Client, ClientOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::broker::{Frontend, accepted, request, url};

/// Where the client finds the broker and the queue of requests when this test runs a second time, in the client's role:
/// the authorities that it trusts are those of its process.
const URL: &str = "FORECASTLE_TEST_TLS_URL";
const QUEUE: &str = "FORECASTLE_TEST_TLS_QUEUE";

async fn be_the_client(url: String, queue: String) {
    let options = ClientOptions { requests_queue: queue, ..ClientOptions::new(url) };
    let client = Client::connect(options).await.unwrap();
    let submission = client.submit(request("over TLS")).await.unwrap();
    assert_eq!(submission.accepted().await.unwrap().request_id, "r");
    client.close().await;
}

/// Takes TLS and hands what is inside on to the broker.
async fn terminate(listener: TcpListener, acceptor: TlsAcceptor, broker: String) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, broker) = (acceptor.clone(), broker.clone());
        tokio::spawn(async move {
            // Who does not trust the certificate breaks off.
            let Ok(mut secure) = acceptor.accept(stream).await else { return };
            let mut plain = TcpStream::connect(broker).await.unwrap();
            // Ends with either side, however it ends.
            drop(tokio::io::copy_bidirectional(&mut secure, &mut plain).await);
        });
    }
}

#[tokio::test]
async fn over_tls_only_a_broker_of_a_known_authority_is_talked_to() {
    if let (Ok(url), Ok(queue)) = (std::env::var(URL), std::env::var(QUEUE)) {
        return be_the_client(url, queue).await;
    }
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let another = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // amqp://user:password@host:port/vhost
    let plain = url();
    let (credentials, place) = plain.strip_prefix("amqp://").unwrap().split_once('@').unwrap();
    let (broker, vhost) = place.split_once('/').unwrap();
    let terminating = tokio::spawn(terminate(listener, TlsAcceptor::from(Arc::new(config)), broker.to_owned()));

    let mut frontend = Frontend::new().await;
    let folder = tempfile::tempdir().unwrap();
    let client = |authority: &rcgen::CertifiedKey<rcgen::KeyPair>, name: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, authority.cert.pem()).unwrap();
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tls::over_tls_only_a_broker_of_a_known_authority_is_talked_to", "--nocapture"])
            .env(URL, format!("amqps://{credentials}@{address}/{vhost}"))
            .env(QUEUE, &frontend.queue)
            .env("SSL_CERT_FILE", &file)
            .env_remove("SSL_CERT_DIR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    };
    let refused = client(&another, "other.pem").wait_with_output().await.unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    assert!(!refused.status.success() && words.contains("certificate"), "{words}");

    let trusting = client(&made, "ca.pem");
    let received = frontend.receive().await;
    assert_eq!(received.body().idempotency_key, "over TLS");
    assert!(frontend.reply(&received, accepted("r")).await);
    let ended = trusting.wait_with_output().await.unwrap();
    let words = String::from_utf8_lossy(&ended.stderr).into_owned() + &String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && words.contains("1 passed"), "{words}");
    terminating.abort();
    frontend.end().await;
}
