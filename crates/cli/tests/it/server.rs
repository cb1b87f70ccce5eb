//! A server that answers as a test tells it to, and remembers what it was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::serve::Listener;
use forecastle_protos::v1::{self, RequestState};
use futures::StreamExt as _;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What the server was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `GET /v1/types`
    pub(crate) what: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// How often just this was asked before.
    pub(crate) before: usize,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub(crate) fn submitted(&self) -> v1::SubmitRequest {
        serde_json::from_slice(&self.body).unwrap()
    }
}

type Answerer = Box<dyn FnMut(&Asked) -> Response + Send>;

/// What every question meets.
type Shared = (Arc<Mutex<Memory>>, Arc<Mutex<Answerer>>);

#[derive(Default)]
struct Memory {
    asked: Vec<Asked>,
    counts: BTreeMap<String, usize>,
}

/// The server; it ends with this.
pub(crate) struct Server {
    pub(crate) url: String,
    memory: Arc<Mutex<Memory>>,
    serving: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn new(answer: impl FnMut(&Asked) -> Response + Send + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), "http", answer)
    }

    /// On a listener of either kind.
    pub(crate) fn on<L>(listener: L, scheme: &str, answer: impl FnMut(&Asked) -> Response + Send + 'static) -> Self
    where
        L: Listener<Addr = SocketAddr>,
    {
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let memory = Arc::new(Mutex::new(Memory::default()));
        let answerer: Arc<Mutex<Answerer>> = Arc::new(Mutex::new(Box::new(answer)));
        let router = Router::new().fallback(serve).with_state((Arc::clone(&memory), answerer));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, memory, serving }
    }

    /// Everything asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.memory.lock().unwrap().asked.clone()
    }

    /// What was asked of one kind.
    pub(crate) fn asked_of(&self, what: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.what == what).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(State((memory, answerer)): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let what = format!("{} {}", parts.method, parts.uri.path());
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let asked = {
        let mut memory = memory.lock().unwrap();
        let count = memory.counts.entry(what.clone()).or_default();
        let before = *count;
        *count += 1;
        let asked = Asked { what, query, headers: parts.headers, body, before };
        memory.asked.push(asked.clone());
        asked
    };
    let mut answerer = answerer.lock().unwrap();
    (*answerer)(&asked)
}

/// A message.
pub(crate) fn message(status: u16, message: &impl Serialize) -> Response {
    let body = serde_json::to_vec(message).unwrap();
    (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A typed error.
pub(crate) fn error(status: u16, code: &str, field: &str, text: &str) -> Response {
    let detail = v1::ErrorDetail { code: code.to_owned(), message: text.to_owned(), field: field.to_owned() };
    message(status, &v1::ErrorBody { error: Some(detail) })
}

/// A route that the server of a test does not have.
pub(crate) fn unknown_route() -> Response {
    error(404, "unknown-route", "", "there is nothing here")
}

/// An event stream of these pieces; then it ends well, breaks, or goes on without a word.
pub(crate) fn stream(pieces: Vec<String>, then: Then) -> Response {
    let pieces = futures::stream::iter(pieces.into_iter().map(|piece| Ok(Bytes::from(piece))));
    let body = match then {
        Then::Ends => Body::from_stream(pieces),
        Then::Breaks => Body::from_stream(pieces.chain(futures::stream::iter([Err(broken())]))),
        Then::Hangs => Body::from_stream(pieces.chain(futures::stream::pending())),
    };
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    Ends,
    Breaks,
    Hangs,
}

fn broken() -> std::io::Error {
    std::io::ErrorKind::ConnectionReset.into()
}

/// An answer whose connection breaks before it is complete.
pub(crate) fn broken_answer(status: u16) -> Response {
    let body = Body::from_stream(futures::stream::iter([Ok(Bytes::from_static(b"{\"requ")), Err(broken())]));
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

pub(crate) fn event(name: &str, data: &impl Serialize) -> String {
    format!("event: {name}\ndata: {}\n\n", serde_json::to_string(data).unwrap())
}

/// `status`, or `finished` for a status that is final.
pub(crate) fn event_of(status: &v1::RequestStatus) -> String {
    match status.state() {
        RequestState::Admitted | RequestState::Running => event("status", status),
        _ => event("finished", &v1::Finished { status: Some(status.clone()) }),
    }
}

/// A request of the tests.
pub(crate) const ID: &str = "01980000-0000-7000-8000-000000000000";

/// How to ask for its events, status and result.
pub(crate) const EVENTS: &str = "GET /v1/requests/01980000-0000-7000-8000-000000000000/events";
pub(crate) const STATUS: &str = "GET /v1/requests/01980000-0000-7000-8000-000000000000";
pub(crate) const RESULT: &str = "GET /v1/requests/01980000-0000-7000-8000-000000000000/result";

pub(crate) fn status(state: RequestState, succeeded: u32) -> v1::RequestStatus {
    let ended = !matches!(state, RequestState::Admitted | RequestState::Running);
    v1::RequestStatus {
        request_id: ID.to_owned(),
        request_type: "archive".to_owned(),
        state: state.into(),
        created_unix_ms: 1_000,
        finished_unix_ms: if ended { 4_500 } else { 0 },
        stages: vec![v1::StageStatus { name: "work".to_owned(), shards: 4, succeeded, ..Default::default() }],
        error: (state == RequestState::Failed).then(|| v1::ErrorDetail {
            code: "permanent-error".to_owned(),
            message: "shard 3: no such file".to_owned(),
            field: String::new(),
        }),
        ..Default::default()
    }
}

pub(crate) fn accepted(created: bool) -> v1::Accepted {
    v1::Accepted { request_id: ID.to_owned(), created }
}

pub(crate) fn shard_result(index: u32) -> v1::ShardResult {
    v1::ShardResult {
        shard_id: format!("{ID}.0.{index}"),
        stage: "work".to_owned(),
        unit: "compress".to_owned(),
        attempt: 1,
        output_uri: format!("file:///store/run-{index}"),
        files: vec![v1::OutputFile { path: "out.zst".to_owned(), bytes: 1024 }],
        ..Default::default()
    }
}
