//! Event streams.

use std::time::{Duration, Instant};

use forecastle_frontend::ingress::http::HttpOptions;
use forecastle_protos::ids::RequestId;
use futures::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::service::{PATIENCE, Service, answer};

/// The events of a stream, as they come.
struct Events {
    body: futures::stream::BoxStream<'static, Vec<u8>>,
    read: String,
}

impl Events {
    async fn of(service: &Service, request: &str) -> Self {
        let path = format!("/v1/requests/{request}/events");
        let response = service.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let body = response.bytes_stream().map(|part| part.expect("the stream goes on").to_vec()).boxed();
        Self { body, read: String::new() }
    }

    /// The next event, or none at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.read.find("\n\n") {
                let event: String = self.read.drain(..end + 2).collect();
                let of = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let found = of("event:").map(|name| (name.to_owned(), of("data:").unwrap_or_default().to_owned()));
                match found {
                    Some((name, data)) => return Some((name, serde_json::from_str(&data).unwrap())),
                    None => continue,
                }
            }
            let part = tokio::time::timeout(PATIENCE, self.body.next()).await.expect("the stream goes on or ends")?;
            self.read.push_str(&String::from_utf8(part).unwrap());
        }
    }

    async fn rest(mut self) -> Vec<(String, Value)> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

#[tokio::test]
async fn a_watcher_hears_the_status_at_once_each_change_and_the_end() {
    let service = Service::start().await;
    let request = service.submit_copy().await;
    let mut events = Events::of(&service, &request).await;
    let (name, first) = events.next().await.unwrap();
    assert_eq!((&*name, &first["requestId"]), ("status", &json!(request)));
    service.run_to_the_end(&request).await;
    let rest = events.rest().await;
    let (last, before) = rest.split_last().unwrap();
    assert!(before.iter().all(|(name, _)| name == "status") && !before.is_empty());
    assert_eq!(before.last().unwrap().1["state"], "REQUEST_STATE_SUCCEEDED");
    assert_eq!((&*last.0, &last.1["status"]), ("finished", &before.last().unwrap().1));
    let mut seen = vec![&first];
    seen.extend(before.iter().map(|(_, status)| status));
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "nothing is said twice");
}

#[tokio::test]
async fn watching_what_has_ended_ends_at_once() {
    let service = Service::start().await;
    let request = service.submit_note().await;
    service.run_to_the_end(&request).await;
    let events = Events::of(&service, &request).await.rest().await;
    let names: Vec<_> = events.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["status", "finished"]);
}

#[tokio::test]
async fn a_watcher_that_lags_behind_the_broadcast_still_hears_the_end() {
    let service = Service::start_with(HttpOptions::default(), 1).await;
    let request = service.submit_note().await;
    let mut events = Events::of(&service, &request).await;
    events.next().await.unwrap();
    // The watcher's receiver holds one change: of its own request's, none is left.
    let flood = |count: usize| (0..count).for_each(|_| drop(service.progress.send(RequestId::new())));
    flood(1000);
    answer(service.request(Method::POST, &format!("/v1/requests/{request}/cancel"))).await;
    flood(1000);
    let rest = events.rest().await;
    assert_eq!(rest.last().unwrap().0, "finished");
    assert_eq!(rest.last().unwrap().1["status"]["state"], "REQUEST_STATE_CANCELLED");
}

#[tokio::test]
async fn however_fast_it_changes_at_most_ten_events_come_a_second() {
    let service = Service::start().await;
    service.workers_have(None);
    let request = service.submit_copy().await;
    service.wait_for(&format!("/v1/requests/{request}"), |status| status["stages"].is_array()).await;
    let began = Instant::now();
    let mut events = Events::of(&service, &request).await;
    events.next().await.unwrap();
    service.workers_have(Some(forecastle_resources::Bytes::mib(512)));
    service.run_to_the_end(&request).await;
    let rest = events.rest().await;
    let statuses = u32::try_from(rest.iter().filter(|(name, _)| name == "status").count()).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(100) * statuses, "{statuses} events in {:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams_without_saying_finished() {
    let mut service = Service::start().await;
    service.workers_have(None);
    let request = service.submit_note().await;
    let mut events = Events::of(&service, &request).await;
    events.next().await.unwrap();
    service.stop.cancel();
    assert!(events.rest().await.iter().all(|(name, _)| name == "status"));
    drop(std::mem::replace(&mut service.tasks, tokio::task::JoinSet::new()));
}
