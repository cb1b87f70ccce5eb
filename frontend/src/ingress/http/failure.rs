//! Errors as they are answered: a status, and an `ErrorBody` that says what is wrong and where.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use forecastle_protos::{JSON, v1};
use serde::Serialize;

use crate::intake::{Rejection, detail};
use crate::ledger::Error as LedgerError;

/// Seconds after which a client may try again when the ledger does not answer.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// An error for the client.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    detail: v1::ErrorDetail,
    /// Boxed to keep results small: few errors have one.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &str, field: &str, message: impl Into<String>) -> Self {
        Self { status, detail: detail(code, field, message), header: None }
    }

    /// Something that cannot be read: a client's mistake.
    pub(super) fn bad_request(code: &str, field: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, field, message)
    }

    pub(super) fn not_found(code: &str, field: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, field, message)
    }

    /// A fault of this program. What happened stands in its log, not in the answer.
    pub(super) fn internal() -> Self {
        let message = "something went wrong in the frontend; its log says what";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "", message)
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    #[cfg(test)]
    pub(super) fn detail(&self) -> &v1::ErrorDetail {
        &self.detail
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        if let LedgerError::UnknownRequest(_) = error {
            return Self::not_found("unknown-request", "requestId", error.to_string());
        }
        tracing::error!(error = format!("{:#}", anyhow::Error::from(error)), "the ledger did not answer");
        let message = "the ledger cannot be used now; try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ledger-unavailable", "", message)
            .with_header(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        let status = match rejection {
            Rejection::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Rejection::Conflict(_) => StatusCode::CONFLICT,
            Rejection::Unavailable(error) => return error.into(),
        };
        Self { status, detail: rejection.detail(), header: None }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &v1::ErrorBody { error: Some(self.detail) });
        if let Some(header) = self.header {
            let (name, value) = *header;
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A message as JSON.
pub(super) fn json(status: StatusCode, message: &impl Serialize) -> Response {
    match serde_json::to_vec(message) {
        Ok(body) => (status, [(header::CONTENT_TYPE, JSON)], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            let body = r#"{"error":{"code":"internal","message":"the answer cannot be written as JSON"}}"#;
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, JSON)], body).into_response()
        }
    }
}
