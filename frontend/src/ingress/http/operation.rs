//! What one operation of the API is: how it is routed and what the document says about it.

use std::sync::Arc;

use axum::handler::Handler;
use axum::http::StatusCode;
use axum::routing::{self, MethodRouter};

use super::api::Serving;
use super::parameter::Parameter;

/// Who may call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Whoever has a token; the token decides the tenant.
    Token,
    /// Anybody.
    Open,
}

/// What an answer's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A message of the package `forecastle.v1`, by its name.
    Message(&'static str),
    /// A stream of server-sent events.
    Events,
    /// The OpenAPI document.
    Document,
}

/// A success.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content: Content,
    pub(super) description: &'static str,
    /// A header that it has, with a description.
    pub(super) header: Option<(&'static str, &'static str)>,
    /// A path parameter of other operations, and the JSON pointer at which this answer has it.
    pub(super) leads_to: Option<(&'static str, &'static str)>,
}

/// An error, with the codes that its body may have.
#[derive(Debug, Clone)]
pub(super) struct Fails {
    pub(super) status: StatusCode,
    pub(super) codes: &'static [&'static str],
    pub(super) description: &'static str,
}

/// An operation.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Unique; the name of a function in generated clients.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) access: Access,
    pub(super) parameters: Vec<Parameter>,
    /// The message that its body is.
    pub(super) body: Option<&'static str>,
    pub(super) answers: Vec<Answer>,
    pub(super) fails: Vec<Fails>,
    pub(super) handler: MethodRouter<Arc<Serving>>,
}

impl Operation {
    pub(super) fn get<H, T>(path: &'static str, id: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Serving>>,
        T: 'static,
    {
        Self::new("get", path, id, routing::get(handler))
    }

    pub(super) fn post<H, T>(path: &'static str, id: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Serving>>,
        T: 'static,
    {
        Self::new("post", path, id, routing::post(handler))
    }

    fn new(method: &'static str, path: &'static str, id: &'static str, handler: MethodRouter<Arc<Serving>>) -> Self {
        let (parameters, answers, fails) = (Vec::new(), Vec::new(), Vec::new());
        Self { method, path, id, summary: "", access: Access::Token, parameters, body: None, answers, fails, handler }
            .fails(400, &["invalid-query", "unknown-query-parameter"], "The query cannot be read.")
            .fails(401, &["unauthenticated"], "There is no token, or it opens nothing.")
            .fails(500, &["internal"], "A fault of the frontend.")
    }

    pub(super) fn summary(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    /// Lets everybody in.
    pub(super) fn open(mut self) -> Self {
        self.access = Access::Open;
        self.fails.retain(|fails| fails.status != StatusCode::UNAUTHORIZED);
        self
    }

    pub(super) fn parameter(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    pub(super) fn body(mut self, message: &'static str) -> Self {
        self.body = Some(message);
        self
    }

    pub(super) fn answers(mut self, status: StatusCode, content: Content, description: &'static str) -> Self {
        self.answers.push(Answer { status, content, description, header: None, leads_to: None });
        self
    }

    /// Adds a header to the last answer.
    pub(super) fn with_header(mut self, name: &'static str, description: &'static str) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.header = Some((name, description));
        }
        self
    }

    /// Says where the last answer has a path parameter of other operations.
    pub(super) fn leads_to(mut self, parameter: &'static str, pointer: &'static str) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.leads_to = Some((parameter, pointer));
        }
        self
    }

    /// Declares an error. A status that was declared before is replaced.
    pub(super) fn fails(mut self, status: u16, codes: &'static [&'static str], description: &'static str) -> Self {
        if let Ok(status) = StatusCode::from_u16(status) {
            self.fails.retain(|fails| fails.status != status);
            self.fails.push(Fails { status, codes, description });
        }
        self
    }
}
