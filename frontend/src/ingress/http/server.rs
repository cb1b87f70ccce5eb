//! Connections: TLS, bounds, and the drain.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use forecastle_resources::Bytes;
use forecastle_service::tls::HANDSHAKE_PATIENCE;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::{Api, Serving};
use super::options::HttpOptions;
use super::{openapi, routes};

/// How long a client may take for the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// How long requests that are being answered may take to end once the server is told to stop.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// The pause after a connection could not be taken: most likely there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that is bound and does not answer yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    max_body: usize,
    connections: Arc<Semaphore>,
}

impl Server {
    /// Checks the options and reads the TLS material, without listening.
    pub fn check(options: &HttpOptions) -> anyhow::Result<()> {
        material(options).map(drop)
    }

    /// Reads the TLS material and listens.
    pub async fn bind(options: &HttpOptions) -> anyhow::Result<Self> {
        let tls = material(options)?;
        let listen = options.listen;
        let listener = TcpListener::bind(listen).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
                "cannot listen on {listen} for requests: another program has this port; set `http.listen` to a free one"
            ),
            _ => anyhow::Error::from(error).context(format!("cannot listen on {listen} for requests (`http.listen`)")),
        })?;
        let address = listener.local_addr().context("cannot tell the address of the listener")?;
        Ok(Self {
            listener,
            address,
            tls,
            max_body: usize::try_from(options.max_body.0).unwrap_or(usize::MAX),
            connections: Arc::new(Semaphore::new(options.max_connections as usize)),
        })
    }

    /// Where it listens: the port is real even if 0 was configured.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`. Then nothing new is taken, event streams end, and what is being answered is finished.
    pub async fn run(self, api: Api, stop: CancellationToken) -> anyhow::Result<()> {
        let operations = routes::operations();
        let document = serde_json::to_vec(&openapi::describe(&operations)?)?;
        let unfinished = TaskTracker::new();
        let serving = Arc::new(Serving {
            api,
            stop: stop.clone(),
            unfinished: unfinished.clone(),
            max_body: self.max_body,
            document: document.into(),
        });
        let router = routes::router(operations, &serving);
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        tracing::info!(url = format!("{scheme}://{}", self.address), "the API is up");

        let (graceful, mut tasks) = (GracefulShutdown::new(), JoinSet::new());
        while let Some((stream, peer)) = stop.run_until_cancelled(self.accept()).await {
            // Those that have ended are forgotten here, so that the set stays as large as the open connections.
            while tasks.try_join_next().is_some() {}
            let (permit, stream) = stream;
            let connection =
                Connection { peer, tls: self.tls.clone(), router: router.clone(), watcher: graceful.watcher() };
            let stop = stop.clone();
            tasks.spawn(async move {
                connection.run(stream, &stop).await;
                drop(permit);
            });
        }
        drop(self.listener);
        let drained = async {
            graceful.shutdown().await;
            while tasks.join_next().await.is_some() {}
        };
        if tokio::time::timeout(DRAIN_PATIENCE, drained).await.is_err() {
            tracing::warn!("clients are slow to take their answers; their connections are closed");
        }
        drop(tasks);
        // Whatever is under way towards the ledger ends with it, and is not cut off.
        unfinished.close();
        unfinished.wait().await;
        Ok(())
    }

    /// The next connection, once there is room for one.
    async fn accept(&self) -> ((tokio::sync::OwnedSemaphorePermit, TcpStream), SocketAddr) {
        loop {
            // The semaphore is never closed; if it were, this would wait for the stop.
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { std::future::pending().await };
            match self.listener.accept().await {
                Ok((stream, peer)) => return ((permit, stream), peer),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One client.
struct Connection {
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    watcher: Watcher,
}

impl Connection {
    async fn run(self, stream: TcpStream, stop: &CancellationToken) {
        // An answer is written at once; without this its end could wait for the client's acknowledgement.
        drop(stream.set_nodelay(true));
        let Some(acceptor) = &self.tls else { return self.serve(stream).await };
        let handshake = tokio::time::timeout(HANDSHAKE_PATIENCE, acceptor.accept(stream));
        match stop.run_until_cancelled(handshake).await {
            Some(Ok(Ok(stream))) => self.serve(stream).await,
            Some(Ok(Err(error))) => tracing::debug!(peer = %self.peer, %error, "no TLS with a client"),
            Some(Err(_)) => tracing::debug!(peer = %self.peer, "a client did not finish TLS's handshake in time"),
            None => {}
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router));
        if let Err(error) = self.watcher.watch(connection).into_future().await {
            tracing::debug!(peer = %self.peer, %error, "a connection broke");
        }
    }
}

/// TLS, if it is configured, and whether the bounds let anybody in.
fn material(options: &HttpOptions) -> anyhow::Result<Option<TlsAcceptor>> {
    anyhow::ensure!(options.max_connections > 0, "http.max_connections is 0: nobody could connect");
    anyhow::ensure!(options.max_body > Bytes::ZERO, "http.max_body is 0: no request could be submitted");
    Ok(options.tls.as_ref().map(|tls| tls.acceptor("http.tls")).transpose()?)
}
