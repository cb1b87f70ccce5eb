//! The frontend's HTTP API.

use std::time::Duration;

use forecastle_protos::ids::{RequestId, ShardId};
use forecastle_protos::{JSON, trace, v1};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use crate::arguments::Connection;
use crate::failure::{Failure, chain};
use crate::follow::{Chunks, Source};
use crate::output::Output;
use crate::token::{Search, Surroundings};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take, its body included. Event streams have their own limit.
const ANSWER: Duration = Duration::from_secs(30);

/// The longest wait between two attempts, whatever the frontend asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The most entries of a page that the frontend gives.
pub(crate) const PAGE: usize = 500;

/// How often to try what may pass.
#[derive(Debug, Clone, Copy)]
struct Patience {
    attempts: u32,
    /// The first pause; it doubles.
    pause: Duration,
}

/// For questions: a person waits.
const QUESTION: Patience = Patience { attempts: 3, pause: Duration::from_millis(200) };

/// For what must arrive: a frontend that restarts is waited for. About 15 seconds when nobody answers at all.
const ORDER: Patience = Patience { attempts: 7, pause: Duration::from_millis(250) };

/// A client.
pub(crate) struct Api {
    http: Client,
    url: Url,
    search: Search,
    output: Output,
}

impl Api {
    /// From the command line. Nothing is sent yet.
    pub(crate) fn new(connection: &Connection, output: Output) -> Result<Self, Failure> {
        let search = Search::new(&Surroundings::of_this_process(), connection.token_file.as_deref(), &connection.url)?;
        let mut builder = Client::builder()
            .user_agent(concat!("forecastle/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            // The API has none, and a token must not go elsewhere.
            .redirect(redirect::Policy::none());
        if let Some(file) = &connection.ca_file {
            let wrong = |why: String| Failure::Usage(format!("CA file {}: {why}", file.display()));
            let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| wrong(chain(&error)))?;
            if authorities.is_empty() {
                return Err(wrong("there is no certificate in it (PEM)".to_owned()));
            }
            builder = builder.tls_certs_only(authorities);
        } else if connection.url.scheme() == "http" {
            // Machines without certificate authorities can talk to a frontend without TLS.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|error| Failure::Usage(format!("TLS: {}", chain(&error))))?;
        Ok(Self { http, url: connection.url.clone(), search, output })
    }

    /// Where the frontend is.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// What token is used and why.
    pub(crate) fn search(&self) -> &Search {
        &self.search
    }

    /// Submits. The body's idempotency key makes it safe to try again.
    pub(crate) async fn submit(&self, request: &v1::SubmitRequest) -> Result<v1::Accepted, Failure> {
        let body = serde_json::to_vec(request).map_err(|error| Failure::Usage(error.to_string()))?;
        // For whatever stands between; the body has it too, and takes keys that no header can hold.
        let key = HeaderValue::from_str(&request.idempotency_key).ok().filter(|key| key.to_str().is_ok_and(is_visible));
        // As OpenTelemetry hands it to programs: the work becomes part of the caller's trace.
        let context = std::env::var("TRACEPARENT").ok().filter(|text| trace::traceparent(text).is_some());
        let build = || {
            let request = self.request(Method::POST, &["v1", "requests"], &[]);
            let request = match &key {
                Some(key) => request.header("Idempotency-Key", key),
                None => request,
            };
            let request = match &context {
                Some(context) => request.header("traceparent", context),
                None => request,
            };
            request.header(CONTENT_TYPE, JSON).body(body.clone())
        };
        self.ask(ORDER, build).await
    }

    /// A page of requests, newest first.
    pub(crate) async fn list(
        &self,
        state: Option<&str>,
        limit: usize,
        cursor: &str,
    ) -> Result<v1::RequestList, Failure> {
        let limit = limit.to_string();
        let query = [("state", state.unwrap_or_default()), ("limit", &limit), ("cursor", cursor)];
        self.ask(QUESTION, || self.request(Method::GET, &["v1", "requests"], &query)).await
    }

    /// A request's status.
    pub(crate) async fn status(&self, id: RequestId) -> Result<v1::RequestStatus, Failure> {
        self.ask(QUESTION, || self.status_request(id)).await
    }

    fn status_request(&self, id: RequestId) -> RequestBuilder {
        self.request(Method::GET, &["v1", "requests", &id.to_string()], &[])
    }

    /// Cancels. Trying again changes nothing.
    pub(crate) async fn cancel(&self, id: RequestId) -> Result<v1::RequestStatus, Failure> {
        self.ask(ORDER, || self.request(Method::POST, &["v1", "requests", &id.to_string(), "cancel"], &[])).await
    }

    /// A page of winning runs.
    pub(crate) async fn result(
        &self,
        id: RequestId,
        limit: usize,
        cursor: &str,
    ) -> Result<v1::ResultManifest, Failure> {
        let limit = limit.to_string();
        let query = [("limit", &*limit), ("cursor", cursor)];
        let path = ["v1", "requests", &id.to_string(), "result"];
        self.ask(QUESTION, || self.request(Method::GET, &path, &query)).await
    }

    /// Everything known of a shard.
    pub(crate) async fn explain(&self, shard: ShardId) -> Result<v1::ShardExplanation, Failure> {
        self.ask(QUESTION, || self.request(Method::GET, &["v1", "shards", &shard.to_string()], &[])).await
    }

    /// The end of a shard's log.
    pub(crate) async fn log(&self, shard: ShardId) -> Result<v1::ShardLog, Failure> {
        self.ask(QUESTION, || self.request(Method::GET, &["v1", "shards", &shard.to_string(), "log"], &[])).await
    }

    /// A page of dead shards, the latest first.
    pub(crate) async fn dead(
        &self,
        filter: &[(&str, &str)],
        limit: usize,
        cursor: &str,
    ) -> Result<v1::DeadList, Failure> {
        let limit = limit.to_string();
        let query = [filter, &[("limit", &*limit), ("cursor", cursor)]].concat();
        self.ask(QUESTION, || self.request(Method::GET, &["v1", "dead"], &query)).await
    }

    /// A dead shard.
    pub(crate) async fn dead_shard(&self, shard: ShardId) -> Result<v1::DeadShard, Failure> {
        self.ask(QUESTION, || self.request(Method::GET, &["v1", "dead", &shard.to_string()], &[])).await
    }

    /// Replays a dead shard. One whose answer was lost is not dead any more when it is tried again.
    pub(crate) async fn replay(&self, shard: ShardId) -> Result<v1::Replayed, Failure> {
        self.ask(ORDER, || self.request(Method::POST, &["v1", "dead", &shard.to_string(), "replay"], &[])).await
    }

    /// Forgets a dead shard.
    pub(crate) async fn purge(&self, shard: ShardId) -> Result<v1::Purged, Failure> {
        self.ask(ORDER, || self.request(Method::POST, &["v1", "dead", &shard.to_string(), "purge"], &[])).await
    }

    /// What can be asked for.
    pub(crate) async fn types(&self) -> Result<v1::RequestTypeList, Failure> {
        self.ask(QUESTION, || self.request(Method::GET, &["v1", "types"], &[])).await
    }

    /// The workers.
    pub(crate) async fn fleet(&self) -> Result<v1::FleetStatus, Failure> {
        self.ask(QUESTION, || self.request(Method::GET, &["v1", "fleet"], &[])).await
    }

    /// Asks workers for other shares. Asking again changes nothing.
    pub(crate) async fn set_shares(&self, shares: &v1::SetShares) -> Result<v1::SharesAsked, Failure> {
        self.ask(ORDER, || self.request(Method::POST, &["v1", "fleet", "shares"], &[]).json(shares)).await
    }

    /// The API's own description.
    pub(crate) async fn description(&self) -> Result<serde_json::Value, Failure> {
        self.once(self.request(Method::GET, &["v1", "openapi.json"], &[])).await
    }

    /// What is at a URL that is not the frontend's API: without the token. The status and the body's beginning.
    pub(crate) async fn look(&self, url: Url) -> Result<(StatusCode, String), String> {
        let answer = self.http.get(url).timeout(CONNECT).send().await;
        let answer = answer.map_err(|error| chain(&error.without_url()))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| chain(&error.without_url()))?;
        Ok((status, text.chars().take(400).collect()))
    }

    /// Follows a request.
    pub(crate) fn following(&self, id: RequestId) -> Following<'_> {
        Following { api: self, id }
    }

    /// Query parameters without a value are left out.
    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.url.clone();
        // An HTTP URL always has a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let given: Vec<_> = query.iter().filter(|(_, value)| !value.is_empty()).collect();
        if !given.is_empty() {
            url.query_pairs_mut().extend_pairs(given.iter().map(|(name, value)| (name, value)));
        }
        let request = self.http.request(method, url);
        match &self.search.token {
            Some(token) => request.header(reqwest::header::AUTHORIZATION, &token.header),
            None => request,
        }
    }

    /// Asks, and again while that may help.
    async fn ask<T: DeserializeOwned>(
        &self,
        patience: Patience,
        build: impl Fn() -> RequestBuilder,
    ) -> Result<T, Failure> {
        let mut pause = patience.pause;
        let mut left = patience.attempts;
        loop {
            let failure = match self.once(build()).await {
                Err(failure) if failure.may_pass() => failure,
                answer => return answer,
            };
            left = left.saturating_sub(1);
            if left == 0 {
                return Err(failure);
            }
            let wait = failure.retry_after().unwrap_or(pause).min(LONGEST_PAUSE);
            if wait >= Duration::from_secs(1) {
                self.output.note(&format!("{failure}; trying again in {} s", wait.as_secs()));
            }
            sleep(wait).await;
            pause *= 2;
        }
    }

    async fn once<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let answer =
            request.header(ACCEPT, JSON).timeout(ANSWER).send().await.map_err(|error| self.unreachable(error))?;
        let answer = self.successful(answer).await?;
        let body = answer.bytes().await.map_err(|error| self.unreachable(error))?;
        serde_json::from_slice(&body).map_err(|error| Failure::Misunderstood(error.to_string()))
    }

    async fn successful(&self, answer: Response) -> Result<Response, Failure> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = answer.bytes().await.unwrap_or_default();
        Err(self.failure(status, retry_after.map(Duration::from_secs), &body))
    }

    fn failure(&self, status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Failure {
        let told = serde_json::from_slice::<v1::ErrorBody>(body).ok().and_then(|body| body.error);
        let is_told = told.is_some();
        let detail = told.unwrap_or_else(|| v1::ErrorDetail {
            code: format!("http-{}", status.as_u16()),
            message: format!("{} answers {status}", self.url),
            field: String::new(),
        });
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Failure::Unauthorised { detail, token: self.search.explained() }
            }
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Failure::Unavailable { detail, retry_after },
            // The frontend says what is wrong with what it was asked.
            status if status.is_client_error() && is_told => Failure::Rejected(detail),
            status if status.is_server_error() && is_told => Failure::Misunderstood(crate::failure::sentence(&detail)),
            _ => Failure::Misunderstood(detail.message),
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> Failure {
        Failure::Unreachable { url: self.url.to_string(), reason: chain(&error.without_url()) }
    }
}

/// True for what a header of the API may hold.
fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A request to follow.
pub(crate) struct Following<'a> {
    api: &'a Api,
    id: RequestId,
}

impl<'a> Source for Following<'a> {
    type Chunks = Body<'a>;

    async fn events(&self) -> Result<Body<'a>, Failure> {
        let path = ["v1", "requests", &self.id.to_string(), "events"];
        let request = self.api.request(Method::GET, &path, &[]).header(ACCEPT, "text/event-stream");
        // No limit on the whole of it; whoever reads has one between its parts.
        let answer = tokio::time::timeout(ANSWER, request.send()).await;
        let answer = answer.map_err(|_| self.api.silent())?.map_err(|error| self.api.unreachable(error))?;
        Ok(Body { api: self.api, answer: self.api.successful(answer).await? })
    }

    async fn status(&self) -> Result<v1::RequestStatus, Failure> {
        self.api.once(self.api.status_request(self.id)).await
    }
}

impl Api {
    fn silent(&self) -> Failure {
        Failure::Unreachable { url: self.url.to_string(), reason: format!("no answer within {} s", ANSWER.as_secs()) }
    }
}

/// The body of an answer, as it comes.
pub(crate) struct Body<'a> {
    api: &'a Api,
    answer: Response,
}

impl Chunks for Body<'_> {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let chunk = self.answer.chunk().await.map_err(|error| self.api.unreachable(error))?;
        Ok(chunk.map(Vec::from))
    }
}
