//! Reading a JSON body within bounds of size and time.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, StatusCode, header};
use forecastle_protos::JSON;
use futures::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::Failure;
use crate::ingress::json;

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long, and up to how many times the limit, the rest of a body that is too large is read and dropped. A client
/// that is still writing would meet a closed connection instead of the answer.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
const DRAIN_FACTOR: usize = 8;

/// Reads a message of at most `limit` bytes.
pub(super) async fn read_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<T, Failure> {
    if !is_json(headers) {
        let message = format!("send the body as `Content-Type: {JSON}`");
        return Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-content-type",
            "Content-Type",
            message,
        ));
    }
    let Ok(bytes) = tokio::time::timeout(PATIENCE, collect(headers, body, limit)).await else {
        let message = format!("the body did not arrive within {} s", PATIENCE.as_secs());
        return Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", "", message));
    };
    parse(&bytes?)
}

/// The same of a body with whole numbers, which proto3's mapping takes as `9.0` too, and pbjson does not.
pub(super) async fn read_json_of_integers<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<T, Failure> {
    let mut value: Value = read_json(headers, body, limit).await?;
    write_integers(&mut value);
    parse(value.to_string().as_bytes())
}

/// Writes numbers that are whole as integers. The parser bounds how deep values nest.
fn write_integers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            // Beyond these a float is no exact integer.
            let exact = |float: f64| float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0;
            if let (None, None, Some(float)) = (number.as_u64(), number.as_i64(), number.as_f64())
                && exact(float)
                && let Ok(integer) = format!("{float:.0}").parse::<i64>()
            {
                *value = integer.into();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(write_integers),
        Value::Object(map) => map.values_mut().for_each(write_integers),
        _ => {}
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    json::parse(bytes).map_err(|detail| Failure::bad_request(&detail.code, &detail.field, detail.message))
}

/// `application/json`, with or without parameters.
fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case(JSON))
}

async fn collect(headers: &HeaderMap, body: Body, limit: usize) -> Result<Vec<u8>, Failure> {
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut too_large = announced.is_some_and(|length| length > limit as u64);
    while !too_large {
        match stream.next().await {
            None => return Ok(bytes),
            Some(Ok(part)) if bytes.len() + part.len() <= limit => bytes.extend_from_slice(&part),
            Some(Ok(_)) => too_large = true,
            Some(Err(_)) => return Err(Failure::bad_request("malformed-body", "", "the body broke off")),
        }
    }
    // A client that asked first (`Expect`) has not begun to send.
    if !headers.contains_key(header::EXPECT) {
        // Running out of patience only means that the connection is closed.
        drop(tokio::time::timeout(DRAIN_PATIENCE, discard(stream, limit.saturating_mul(DRAIN_FACTOR))).await);
    }
    let message = format!("the body is larger than {limit} bytes, the most that is accepted");
    Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "", message))
}

async fn discard(mut stream: BodyDataStream, mut most: usize) {
    while let Some(Ok(part)) = stream.next().await
        && most > part.len()
    {
        most -= part.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use forecastle_protos::v1::SubmitRequest;
    use serde_json::json;

    #[test]
    fn only_json_is_read() {
        let typed =
            |value: &'static str| HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]);
        assert!(is_json(&typed("application/json")) && is_json(&typed("Application/JSON; charset=utf-8")));
        assert!(!is_json(&HeaderMap::new()) && !is_json(&typed("text/plain")) && !is_json(&typed("application/jsonx")));
    }

    #[test]
    fn whole_numbers_are_integers_however_they_are_written() {
        let mut value = json!({ "a": [9013.0, -1.0, 0.0, 1.5, 1e300, 7, "8.0"] });
        write_integers(&mut value);
        assert_eq!(value.to_string(), r#"{"a":[9013,-1,0,1.5,1e+300,7,"8.0"]}"#);
    }

    #[tokio::test]
    async fn a_body_without_a_length_is_refused_once_it_is_over_the_limit() {
        let parts = futures::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100])));
        let failure = collect(&HeaderMap::new(), Body::from_stream(parts), 1000).await.unwrap_err();
        assert_eq!((failure.status(), &*failure.detail().code), (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_not_waited_for_for_ever() {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(JSON))]);
        let body = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let failure = read_json::<SubmitRequest>(&headers, body, 1000).await.unwrap_err();
        assert_eq!(failure.status(), StatusCode::REQUEST_TIMEOUT);
    }
}
