//! Intake: what both ingresses share. A submission is checked against the catalogue and made durable; only then is
//! it answered.

use std::path::Path;
use std::sync::Arc;

use forecastle_catalogue::{InputKind, RequestType};
use forecastle_protos::ids::RequestId;
use forecastle_protos::{trace, v1};
use forecastle_resources::Priority;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::catalogue_store::CatalogueStore;
use crate::clock::now_ms;
use crate::ledger::{Admission, Admitted, Error as LedgerError, Ledger, Repeated, ReplyAddress};
use crate::roots::AllowedRoots;

/// The longest idempotency key and tenant, in bytes.
const LONGEST_NAME: usize = 256;

/// The most labels, and the longest of either part of one.
const MOST_LABELS: usize = 64;

/// A submission as an ingress hands it over.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// The tenant: by token over HTTP, by name over AMQP.
    pub tenant: String,
    /// What was submitted.
    pub body: v1::SubmitRequest,
    /// Where the final reply goes.
    pub reply: Option<ReplyAddress>,
}

/// Why a submission was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// It is wrong, and will be wrong the next time.
    #[error("{}", .0.message)]
    Invalid(v1::ErrorDetail),
    /// Its key was used for another request.
    #[error("{}", .0.message)]
    Conflict(v1::ErrorDetail),
    /// The ledger cannot take it now.
    #[error("the request was not accepted")]
    Unavailable(#[source] LedgerError),
}

impl Rejection {
    /// The error as it goes over the wire.
    pub fn detail(&self) -> v1::ErrorDetail {
        match self {
            Self::Invalid(detail) | Self::Conflict(detail) => detail.clone(),
            Self::Unavailable(error) => v1::ErrorDetail {
                code: "ledger-unavailable".to_owned(),
                message: format!("the request was not accepted: {error}; try again later"),
                field: String::new(),
            },
        }
    }
}

/// Makes an [`v1::ErrorDetail`].
pub fn detail(code: &str, field: &str, message: impl Into<String>) -> v1::ErrorDetail {
    v1::ErrorDetail { code: code.to_owned(), message: message.into(), field: field.to_owned() }
}

fn invalid(code: &str, field: &str, message: impl Into<String>) -> Rejection {
    Rejection::Invalid(detail(code, field, message))
}

/// A submission that is in the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The request.
    pub request: RequestId,
    /// The answer.
    pub accepted: v1::Accepted,
    /// True if the request had ended and its final reply is owed to this submission's address now.
    pub reply_owed: bool,
}

/// Checks submissions and admits them to the ledger.
pub struct Intake {
    ledger: Arc<dyn Ledger>,
    catalogue: Arc<CatalogueStore>,
    roots: AllowedRoots,
    admitted: Arc<Notify>,
}

impl Intake {
    /// An intake; `admitted` wakes the planner.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        catalogue: Arc<CatalogueStore>,
        roots: AllowedRoots,
        admitted: Arc<Notify>,
    ) -> Self {
        Self { ledger, catalogue, roots, admitted }
    }

    /// Checks and admits. `Ok` means that the request is in the ledger.
    pub async fn submit(&self, submission: Submission) -> Result<Taken, Rejection> {
        let repeated = Repeated {
            tenant: submission.tenant.clone(),
            idempotency_key: submission.body.idempotency_key.clone(),
            sent_sha256: digest(&sent(&submission.body)),
            reply: submission.reply.clone(),
        };
        let admission = match self.check(submission, repeated.sent_sha256).await {
            Ok(admission) => admission,
            // What was accepted stays accepted, whatever has become of its input or its type.
            Err(rejection) if !repeated.idempotency_key.is_empty() => {
                let before = self.ledger.admitted_before(repeated).await.map_err(Rejection::Unavailable)?;
                return before.map(taken).ok_or(rejection);
            }
            Err(rejection) => return Err(rejection),
        };
        let key = admission.idempotency_key.is_some();
        match self.ledger.admit(admission).await {
            Ok(admitted) => {
                if admitted.created {
                    self.admitted.notify_one();
                }
                Ok(taken(admitted))
            }
            Err(error @ LedgerError::Conflict { .. }) if key => {
                Err(Rejection::Conflict(detail("idempotency-conflict", "idempotencyKey", error.to_string())))
            }
            Err(error) => Err(Rejection::Unavailable(error)),
        }
    }

    async fn check(&self, submission: Submission, sent_sha256: [u8; 32]) -> Result<Admission, Rejection> {
        let Submission { tenant, mut body, reply } = submission;
        let catalogue = self.catalogue.current();
        if tenant.is_empty() || tenant.len() > LONGEST_NAME {
            return Err(invalid("invalid-tenant", "tenant", format!("a tenant has 1 to {LONGEST_NAME} bytes")));
        }
        if body.idempotency_key.len() > LONGEST_NAME {
            return Err(invalid(
                "invalid-idempotency-key",
                "idempotencyKey",
                format!("an idempotency key has at most {LONGEST_NAME} bytes"),
            ));
        }
        check_labels(&body)?;
        let request_type = catalogue
            .request_type(&body.request_type)
            .map_err(|error| invalid("unknown-request-type", "requestType", error.to_string()))?;
        let given = parameters(&body)?;
        let checked = request_type.check_parameters(&given).map_err(|errors| {
            let first = errors.first().map(|e| e.field.clone()).unwrap_or_default();
            let all: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
            invalid("invalid-parameter", &first, all.join("; "))
        })?;
        let checked: Map<String, Value> = checked
            .into_iter()
            .map(|(name, value)| (name, serde_json::to_value(&value).unwrap_or(Value::Null)))
            .collect();
        let sla = body.sla.clone().unwrap_or_default();
        let priority: Priority = match &*sla.priority {
            "" => request_type.priority,
            name => name.parse().map_err(|e| invalid("invalid-priority", "sla.priority", format!("{e}")))?,
        };
        let now_ms = now_ms();
        let deadline_ms = deadline(&sla, request_type, now_ms)?;
        self.check_input(&body, request_type).await?;

        // Of what was meant: defaults filled in.
        let sla_meant = v1::Sla { priority: priority.as_str().to_owned(), ..sla };
        let body_sha256 = digest(&compared(&body, Value::Object(checked.clone()), &sla_meant));
        let idempotency_key = Some(body.idempotency_key.clone()).filter(|key| !key.is_empty());
        body.parameters = Some(serde_json::from_value(Value::Object(checked)).map_err(|error| {
            invalid("invalid-parameter", "parameters", format!("a parameter cannot be kept exactly: {error}"))
        })?);
        body.tenant.clone_from(&tenant);
        let id = RequestId::new();
        if trace::traceparent(&body.traceparent).is_none() {
            body.traceparent = trace::beginning_with(id);
        }
        Ok(Admission {
            id,
            tenant,
            idempotency_key,
            body_sha256,
            sent_sha256,
            fleet: request_type.fleet.clone(),
            body,
            priority,
            deadline_ms,
            reply,
            now_ms,
        })
    }

    async fn check_input(&self, body: &v1::SubmitRequest, request_type: &RequestType) -> Result<(), Rejection> {
        use v1::input::Kind;
        let kind = body.input.as_ref().and_then(|input| input.kind.as_ref());
        let (field, paths) = match (request_type.input, kind) {
            (InputKind::None, None) => return Ok(()),
            (InputKind::Directory, Some(Kind::Directory(path))) => ("input.directory", vec![path.clone()]),
            (InputKind::Items, Some(Kind::Items(list))) if !list.paths.is_empty() => {
                ("input.items", list.paths.clone())
            }
            (wanted, _) => {
                let wanted = match wanted {
                    InputKind::None => "takes no input",
                    InputKind::Directory => "needs input.directory",
                    InputKind::Items => "needs input.items with at least one path",
                };
                return Err(invalid("invalid-input", "input", format!("request type {} {wanted}", request_type.name)));
            }
        };
        let roots = self.roots.clone();
        let checked = tokio::task::spawn_blocking(move || {
            paths.iter().try_for_each(|path| roots.resolve(Path::new(path)).map(drop))
        })
        .await;
        match checked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                let error = crate::analysis::AnalysisError::from(error);
                Err(invalid(error.code(), field, error.to_string()))
            }
            Err(_) => Err(Rejection::Unavailable(LedgerError::Closed)),
        }
    }
}

fn check_labels(body: &v1::SubmitRequest) -> Result<(), Rejection> {
    if body.labels.len() > MOST_LABELS {
        return Err(invalid("invalid-labels", "labels", format!("a request has at most {MOST_LABELS} labels")));
    }
    match body.labels.iter().find(|(key, value)| key.len() > LONGEST_NAME || value.len() > LONGEST_NAME) {
        Some((key, _)) => {
            let key: String = key.chars().take(64).collect();
            Err(invalid(
                "invalid-labels",
                &format!("labels.{key}"),
                format!("a label has at most {LONGEST_NAME} bytes"),
            ))
        }
        None => Ok(()),
    }
}

fn parameters(body: &v1::SubmitRequest) -> Result<Map<String, Value>, Rejection> {
    let Some(given) = &body.parameters else { return Ok(Map::new()) };
    match serde_json::to_value(given) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(invalid("invalid-parameter", "parameters", "parameters hold a value that JSON cannot express")),
    }
}

fn deadline(sla: &v1::Sla, request_type: &RequestType, now_ms: u64) -> Result<Option<u64>, Rejection> {
    // Ten years: what lies beyond is a mistake in units.
    const FARTHEST_SECONDS: f64 = 315_360_000.0;
    let millis = if sla.deadline_seconds == 0.0 {
        request_type.deadline.map(|deadline| u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX))
    } else if sla.deadline_seconds > 0.0 && sla.deadline_seconds <= FARTHEST_SECONDS {
        u64::try_from(std::time::Duration::from_secs_f64(sla.deadline_seconds).as_millis()).ok()
    } else {
        return Err(invalid(
            "invalid-deadline",
            "sla.deadlineSeconds",
            format!("a deadline is a number of seconds above 0 and up to {FARTHEST_SECONDS}"),
        ));
    };
    Ok(millis.map(|millis| now_ms.saturating_add(millis)))
}

fn taken(admitted: Admitted) -> Taken {
    Taken {
        request: admitted.request,
        accepted: v1::Accepted { request_id: admitted.request.to_string(), created: admitted.created },
        reply_owed: admitted.reply_owed,
    }
}

/// What submissions of one key are compared by, without the key itself.
fn compared(body: &v1::SubmitRequest, parameters: Value, sla: &v1::Sla) -> Value {
    let entries = [
        ("requestType", Value::from(body.request_type.clone())),
        ("parameters", parameters),
        ("input", serde_json::to_value(&body.input).unwrap_or(Value::Null)),
        ("priority", Value::from(sla.priority.clone())),
        ("deadlineSeconds", Value::from(sla.deadline_seconds)),
    ];
    Value::Object(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The same of what was sent, as it is.
fn sent(body: &v1::SubmitRequest) -> Value {
    let parameters = serde_json::to_value(&body.parameters).unwrap_or(Value::Null);
    compared(body, parameters, &body.sla.clone().unwrap_or_default())
}

fn digest(value: &Value) -> [u8; 32] {
    let mut text = String::new();
    write_canonical(value, &mut text);
    Sha256::digest(text.as_bytes()).into()
}

/// JSON with the keys of objects in order, whatever order the map keeps.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (key, value) in entries {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(values) => {
            out.push('[');
            for value in values {
                write_canonical(value, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
