//! A TCP proxy that a test can break: so ClickHouse goes away without stopping the one that others use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Forwards to ClickHouse until it is stopped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    upstream: String,
    swallow_answers: Arc<AtomicBool>,
    task: Option<JoinHandle<()>>,
}

impl Proxy {
    /// In front of `http://host:port`.
    pub(crate) async fn start(url: &str) -> Self {
        let upstream = url.strip_prefix("http://").expect("tests use plain HTTP").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut proxy = Self { address, upstream, swallow_answers: Arc::default(), task: None };
        proxy.serve(listener);
        proxy
    }

    fn serve(&mut self, listener: TcpListener) {
        let (upstream, swallow_answers) = (self.upstream.clone(), Arc::clone(&self.swallow_answers));
        self.task = Some(tokio::spawn(async move {
            // Dropped with this task, and every connection with it.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(forward(client, upstream.clone(), Arc::clone(&swallow_answers)));
            }
        }));
    }

    /// From now on requests arrive, but the connection breaks before their answer.
    pub(crate) fn swallow_answers(&self, swallow: bool) {
        self.swallow_answers.store(swallow, Ordering::SeqCst);
    }

    /// Nobody listens any more and every connection is broken.
    pub(crate) async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// At the same address again.
    pub(crate) async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }
}

async fn forward(client: TcpStream, upstream: String, swallow_answers: Arc<AtomicBool>) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let requests = async { tokio::io::copy(&mut from_client, &mut to_server).await };
    let answers = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            use tokio::io::AsyncReadExt as _;
            match from_server.read(&mut buffer).await {
                Ok(count) if count > 0 && !swallow_answers.load(Ordering::SeqCst) => {
                    if to_client.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    };
    tokio::select! {
        _ = requests => {}
        () = answers => {}
    }
}
