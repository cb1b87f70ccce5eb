//! The admin endpoint: `/metrics` for Prometheus, `/healthz` (the process answers) and `/readyz` (it can work now).
//!
//! Without authentication, so it listens on the loopback interface unless configured otherwise.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::metric_definitions::{self, BYTES_BUCKETS, COUNT_BUCKETS, SECONDS_BUCKETS};
use crate::readiness::Readiness;
use crate::tls::{TlsError, TlsListener, TlsOptions};

/// How often histograms are folded, so that they stay small when nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How long open connections may take to end after the stop.
const CLOSING_GRACE: Duration = Duration::from_secs(2);

/// Where the admin endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminOptions {
    /// Address and port of `/metrics`, `/healthz` and `/readyz`, which ask for no token. Port 0 takes a free one, which
    /// the log tells.
    pub listen: SocketAddr,
    /// The endpoint's certificate. With it, only TLS is spoken.
    pub tls: Option<TlsOptions>,
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), tls: None }
    }
}

/// Why there is no admin endpoint.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be listened on.
    #[error("cannot listen on {listen} for the admin endpoint: {}", explain(.source))]
    Bind {
        /// As configured.
        listen: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Metrics go somewhere else in this process.
    #[error("the recorder of metrics cannot be installed")]
    Recorder(#[source] BuildError),
    /// The listener failed.
    #[error("the admin endpoint failed")]
    Serve(#[source] io::Error),
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program has this port; set `admin.listen` to a free one".to_owned(),
        _ => error.to_string(),
    }
}

/// A bound endpoint that does not answer yet.
pub struct Admin {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    address: SocketAddr,
    state: Answers,
}

#[derive(Debug, Clone)]
struct Answers {
    metrics: PrometheusHandle,
    readiness: Readiness,
}

impl Admin {
    /// Listens, and installs the recorder of metrics if this process has none yet (two endpoints in one process show
    /// the same metrics).
    pub async fn bind(options: &AdminOptions) -> Result<(Self, Readiness), AdminError> {
        let tls = options.tls.as_ref().map(|tls| tls.acceptor("admin.tls")).transpose()?;
        let failed = |source| AdminError::Bind { listen: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let readiness = Readiness::new();
        let state = Answers { metrics: recorder()?, readiness: readiness.clone() };
        Ok((Self { listener, tls, address, state }, readiness))
    }

    /// Where it listens: the port is real even if 0 was configured.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), AdminError> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        tracing::info!(address = %self.address, scheme, "admin endpoint is up");
        let metrics = self.state.metrics.clone();
        let router = Router::new()
            .route("/metrics", get(render_metrics))
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(readyz))
            .with_state(self.state);
        let ending = stop.clone().cancelled_owned();
        let server = async {
            match self.tls {
                Some(acceptor) => {
                    let listener = TlsListener::new(self.listener, acceptor)?;
                    axum::serve(listener, router).with_graceful_shutdown(ending).await
                }
                None => axum::serve(self.listener, router).with_graceful_shutdown(ending).await,
            }
        };
        tokio::select! {
            result = server => result.map_err(AdminError::Serve),
            () = upkeep(metrics) => Ok(()),
            () = async { stop.cancelled().await; tokio::time::sleep(CLOSING_GRACE).await } => Ok(()),
        }
    }
}

/// Never ends.
async fn upkeep(metrics: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

async fn render_metrics(State(answers): State<Answers>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], answers.metrics.render()).into_response()
}

/// The body of `/readyz`.
#[derive(Debug, Serialize)]
struct ReadyBody {
    ready: bool,
    waiting_for: Vec<String>,
}

async fn readyz(State(answers): State<Answers>) -> Response {
    let waiting_for = answers.readiness.waiting_for();
    let ready = waiting_for.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ReadyBody { ready, waiting_for })).into_response()
}

/// The recorder of this process, installed by the first who asks. Histograms in seconds, bytes, rows and batches have
/// buckets; others are summaries.
fn recorder() -> Result<PrometheusHandle, AdminError> {
    static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let mut builder = PrometheusBuilder::new();
    for (suffix, buckets) in [
        ("_seconds", &SECONDS_BUCKETS[..]),
        ("_bytes", &BYTES_BUCKETS[..]),
        ("_rows", &COUNT_BUCKETS[..]),
        ("_batch", &COUNT_BUCKETS[..]),
    ] {
        builder = builder
            .set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), buckets)
            .map_err(AdminError::Recorder)?;
    }
    let handle = builder.install_recorder().map_err(AdminError::Recorder)?;
    metric_definitions::describe();
    Ok(installed.insert(handle).clone())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    use super::*;

    struct Running {
        address: SocketAddr,
        readiness: Readiness,
        stop: CancellationToken,
        task: JoinHandle<Result<(), AdminError>>,
    }

    async fn start() -> Running {
        let (admin, readiness) = Admin::bind(&AdminOptions::default()).await.unwrap();
        let (address, stop) = (admin.local_addr(), CancellationToken::new());
        Running { address, readiness, stop: stop.clone(), task: tokio::spawn(admin.run(stop)) }
    }

    async fn ask(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    #[tokio::test]
    async fn readyz_is_503_with_what_is_missing_until_every_gate_is_set() {
        let running = start().await;
        let (broker, _ledger) = (running.readiness.gate("broker"), running.readiness.gate("ledger").set(true));
        let (status, body) = ask(running.address, "/readyz").await;
        assert_eq!(status, 503);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&body).unwrap(),
            serde_json::json!({ "ready": false, "waiting_for": ["broker"] })
        );
        assert_eq!(ask(running.address, "/healthz").await.0, 200, "alive although not ready");
        broker.set(true);
        assert_eq!(ask(running.address, "/readyz").await.0, 200);
        assert_eq!(ask(running.address, "/nothing").await.0, 404);
    }

    #[tokio::test]
    async fn metrics_of_every_crate_are_shown_with_buckets_for_seconds() {
        let (first, second) = (start().await, start().await);
        metrics::counter!("test_events_total", "kind" => "a").increment(2);
        metrics::histogram!("test_wait_seconds").record(0.02);
        for running in [&first, &second] {
            let (status, body) = ask(running.address, "/metrics").await;
            assert_eq!(status, 200);
            assert!(body.contains("test_events_total{kind=\"a\"} 2"), "{body}");
            assert!(body.contains("test_wait_seconds_bucket{le=\"0.025\"} 1"), "{body}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_says_so_and_what_to_change() {
        let running = start().await;
        let error = Admin::bind(&AdminOptions { listen: running.address, tls: None }).await.err().unwrap().to_string();
        assert!(error.contains(&running.address.to_string()) && error.contains("admin.listen"), "{error}");
    }

    #[tokio::test]
    async fn with_a_certificate_only_tls_is_spoken_and_a_client_that_says_nothing_holds_up_no_other() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tls =
            TlsOptions { certificate_file: folder.path().join("admin.pem"), key_file: folder.path().join("admin.key") };
        let options = AdminOptions { tls: Some(tls.clone()), ..AdminOptions::default() };
        let error = Admin::bind(&options).await.err().unwrap().to_string();
        assert!(error.contains("admin.tls.certificate_file") && error.contains("admin.pem"), "{error}");
        std::fs::write(&tls.certificate_file, made.cert.pem()).unwrap();
        std::fs::write(&tls.key_file, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let error = Admin::bind(&options).await.err().unwrap().to_string();
        assert!(error.contains("do not go together"), "{error}");
        std::fs::write(&tls.key_file, made.signing_key.serialize_pem()).unwrap();

        let (admin, _readiness) = Admin::bind(&options).await.unwrap();
        let (address, stop) = (admin.local_addr(), CancellationToken::new());
        let task = tokio::spawn(admin.run(stop.clone()));
        let silent = TcpStream::connect(address).await.unwrap();
        let mut roots = tokio_rustls::rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = tokio_rustls::rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // The server closes as HTTP says, without a goodbye of TLS.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "without TLS nobody is answered");
        stop.cancel();
        task.await.unwrap().unwrap();
        drop(silent);
    }

    #[tokio::test]
    async fn it_stops_although_a_client_keeps_a_request_open() {
        let running = start().await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        running.stop.cancel();
        tokio::time::timeout(Duration::from_secs(30), running.task).await.expect("it stops").unwrap().unwrap();
    }
}
