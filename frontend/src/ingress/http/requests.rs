//! Submitting, finding and cancelling requests.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use forecastle_protos::ids::{RequestId, ShardId};
use forecastle_protos::v1;

use super::api::Serving;
use super::authentication::Tenant;
use super::body::read_json;
use super::failure::{Failure, json};
use super::parameter::Given;
use crate::clock::now_ms;
use crate::crash_points;
use crate::intake::{Rejection, Submission, Taken};
use crate::ledger::{Error as LedgerError, Ledger, Listing};
use crate::metric_definitions::REQUESTS;

fn count(answer: &'static str) {
    metrics::counter!(REQUESTS, "ingress" => "http", "answer" => answer).increment(1);
}

/// Submits a request.
pub(super) async fn submit(
    State(serving): State<Arc<Serving>>,
    Extension(Tenant(tenant)): Extension<Tenant>,
    given: Given,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let body = read_json(&headers, body, serving.max_body).await.and_then(|body| complete(body, &given, &tenant));
    let body = body.inspect_err(|_| count("rejected"))?;
    let intake = Arc::clone(&serving.api.intake);
    let submission = Submission { tenant, body, reply: None };
    let submitted = serving
        .to_the_end(async move {
            crash_points::INTAKE_BEFORE_COMMIT.hit();
            let submitted = intake.submit(submission).await;
            crash_points::INTAKE_AFTER_COMMIT.hit();
            submitted
        })
        .await?;
    match submitted {
        Ok(Taken { accepted, .. }) => {
            let (answer, status) =
                if accepted.created { ("created", StatusCode::CREATED) } else { ("known", StatusCode::OK) };
            count(answer);
            let location = format!("/v1/requests/{}", accepted.request_id);
            Ok(([(header::LOCATION, location)], json(status, &accepted)).into_response())
        }
        Err(rejection) => {
            count(if matches!(rejection, Rejection::Unavailable(_)) { "unavailable" } else { "rejected" });
            Err(rejection.into())
        }
    }
}

/// Fills in what stands beside the body, and refuses what contradicts it.
fn complete(mut body: v1::SubmitRequest, given: &Given, tenant: &str) -> Result<v1::SubmitRequest, Failure> {
    let unprocessable = |code, field, message| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, code, field, message);
    if !body.tenant.is_empty() && body.tenant != tenant {
        let message = "the token decides the tenant; leave this field out";
        return Err(unprocessable("invalid-tenant", "tenant", message));
    }
    match given.idempotency_key()? {
        Some(key) if body.idempotency_key.is_empty() => key.clone_into(&mut body.idempotency_key),
        Some(key) if body.idempotency_key != key => {
            let message = "the header Idempotency-Key and this field differ; send one of them";
            return Err(unprocessable("invalid-idempotency-key", "idempotencyKey", message));
        }
        _ => {}
    }
    if let Some(traceparent) = given.traceparent() {
        traceparent.clone_into(&mut body.traceparent);
    }
    Ok(body)
}

/// A page of requests.
pub(super) async fn list(
    State(serving): State<Arc<Serving>>,
    Extension(Tenant(tenant)): Extension<Tenant>,
    given: Given,
) -> Result<Response, Failure> {
    let listing = Listing { tenant, state: given.state()?, before: given.request_cursor()?, limit: given.limit()? };
    let (requests, next) = serving.api.ledger.list(listing).await?;
    let next_cursor = next.map(|seq| seq.to_string()).unwrap_or_default();
    Ok(json(StatusCode::OK, &v1::RequestList { requests, next_cursor }))
}

/// A request's status.
pub(super) async fn status(
    State(serving): State<Arc<Serving>>,
    Extension(tenant): Extension<Tenant>,
    given: Given,
) -> Result<Response, Failure> {
    let status = status_of(&*serving.api.ledger, &tenant, given.request_id()?).await?;
    Ok(json(StatusCode::OK, &status))
}

/// Cancels a request.
pub(super) async fn cancel(
    State(serving): State<Arc<Serving>>,
    Extension(tenant): Extension<Tenant>,
    given: Given,
) -> Result<Response, Failure> {
    let request = given.request_id()?;
    status_of(&*serving.api.ledger, &tenant, request).await?;
    let (ledger, effects) = (Arc::clone(&serving.api.ledger), serving.api.effects.clone());
    serving
        .to_the_end(async move {
            let changes = ledger.cancel(request, now_ms()).await?;
            effects.spread(changes).await;
            Ok::<_, LedgerError>(())
        })
        .await??;
    let status = status_of(&*serving.api.ledger, &tenant, request).await?;
    Ok(json(StatusCode::OK, &status))
}

/// A page of winning runs.
pub(super) async fn result(
    State(serving): State<Arc<Serving>>,
    Extension(tenant): Extension<Tenant>,
    given: Given,
) -> Result<Response, Failure> {
    let (request, after, limit) = (given.request_id()?, given.result_cursor()?, given.limit()?);
    let ledger = &*serving.api.ledger;
    let status = status_of(ledger, &tenant, request).await?;
    // One more than asked for tells whether there is a next page.
    let mut shards = ledger.manifest(request, after, limit + 1).await?;
    let more = shards.len() > limit as usize;
    shards.truncate(limit as usize);
    let last = shards.last().filter(|_| more).and_then(|shard| shard.shard_id.parse::<ShardId>().ok());
    let next_cursor = last.map(|shard| format!("{}.{}", shard.stage, shard.index)).unwrap_or_default();
    let manifest = v1::ResultManifest { request_id: request.to_string(), state: status.state, shards, next_cursor };
    Ok(json(StatusCode::OK, &manifest))
}

/// The status of a tenant's own request. Another tenant's is answered like one that does not exist.
pub(super) async fn status_of(
    ledger: &dyn Ledger,
    Tenant(tenant): &Tenant,
    request: RequestId,
) -> Result<v1::RequestStatus, Failure> {
    let status = ledger.status(request).await?.filter(|status| status.tenant == *tenant);
    status.ok_or_else(|| LedgerError::UnknownRequest(request).into())
}
