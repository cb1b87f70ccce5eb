//! The table of operations, and the router made from it.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;

use super::api::Serving;
use super::authentication::require_token;
use super::failure::Failure;
use super::operation::{Access, Content, Operation};
use super::parameter::{
    DIED_BEFORE, IDEMPOTENCY_KEY, LIMIT, Place, REASON, REQUEST_CURSOR, REQUEST_ID, REQUEST_TYPE, RESULT_CURSOR,
    SHARD_ID, STATE, check_query,
};
use super::{dead, fleet, openapi, overview, progress, requests, shards, shares};

const LEDGER_CODES: &[&str] = &["ledger-unavailable"];
const LEDGER: &str = "The ledger cannot be used now; the header `Retry-After` says when to try again.";
const ID_OR_QUERY: &[&str] = &["invalid-id", "invalid-path", "invalid-query", "unknown-query-parameter"];
const NOT_DEAD: &str = "This tenant has no such shard among the dead; it may have been replayed or purged before.";
const UNREADABLE: &str = "The path or the query cannot be read.";

/// Every operation of the API.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::post("/v1/requests", "submitRequest", requests::submit)
            .summary("Submits a request. The answer follows its commit to the ledger.")
            .parameter(IDEMPOTENCY_KEY)
            .body("SubmitRequest")
            .answers(StatusCode::CREATED, Content::Message("Accepted"), "The request is durable.")
            .with_header("Location", "Where its status is.")
            .leads_to("requestId", "/requestId")
            .answers(StatusCode::OK, Content::Message("Accepted"), "It was accepted before, under the same key.")
            .with_header("Location", "Where its status is.")
            .leads_to("requestId", "/requestId")
            .fails(
                400,
                &[
                    "malformed-body",
                    "unknown-field",
                    "invalid-idempotency-key",
                    "invalid-query",
                    "unknown-query-parameter",
                ],
                "The body, a header or the query cannot be read.",
            )
            .fails(408, &["body-timeout"], "The body did not arrive in time.")
            .fails(409, &["idempotency-conflict"], "The key was used for another request.")
            .fails(413, &["body-too-large"], "The body is over the limit.")
            .fails(415, &["unsupported-content-type"], "The body is not sent as JSON.")
            .fails(
                422,
                &[
                    "unknown-request-type",
                    "invalid-parameter",
                    "invalid-input",
                    "input-not-allowed",
                    "input-unreadable",
                    "invalid-priority",
                    "invalid-deadline",
                    "invalid-idempotency-key",
                    "invalid-labels",
                    "invalid-tenant",
                ],
                "The body can be read, but not be accepted; `field` says what is wrong.",
            )
            .fails(503, LEDGER_CODES, LEDGER),
        Operation::get("/v1/requests", "listRequests", requests::list)
            .summary("The token's tenant's requests, newest first.")
            .parameter(STATE)
            .parameter(LIMIT)
            .parameter(REQUEST_CURSOR)
            .answers(StatusCode::OK, Content::Message("RequestList"), "A page.")
            .leads_to("requestId", "/requests/0/requestId")
            .fails(503, LEDGER_CODES, LEDGER),
        of_request(Operation::get("/v1/requests/{requestId}", "getRequest", requests::status))
            .summary("A request's status.")
            .answers(StatusCode::OK, Content::Message("RequestStatus"), "Its status."),
        of_request(Operation::post("/v1/requests/{requestId}/cancel", "cancelRequest", requests::cancel))
            .summary("Cancels a request. One that has ended stays as it is.")
            .answers(StatusCode::OK, Content::Message("RequestStatus"), "Its status afterwards."),
        of_request(Operation::get("/v1/requests/{requestId}/events", "watchRequest", progress::watch))
            .summary("Follows a request until it ends.")
            .answers(
                StatusCode::OK,
                Content::Events,
                "Events `status`, each with a RequestStatus: one at once and one after each change, at most ten a \
                 second. At last one event `finished` with a Finished. A stream that ends without it is to be opened \
                 again.",
            ),
        of_request(Operation::get("/v1/requests/{requestId}/result", "getResult", requests::result))
            .summary("The winning run of every shard that has succeeded so far.")
            .parameter(LIMIT)
            .parameter(RESULT_CURSOR)
            .answers(StatusCode::OK, Content::Message("ResultManifest"), "A page, in the order of stages and shards.")
            .leads_to("shardId", "/shards/0/shardId"),
        of_shard(Operation::get("/v1/shards/{shardId}", "explainShard", shards::explain))
            .summary("What was predicted for a shard and by what, where it waits and why, and what it used.")
            .answers(StatusCode::OK, Content::Message("ShardExplanation"), "All that is known of it.")
            .fails(404, &["unknown-shard"], "This tenant has no such shard."),
        of_shard(Operation::get("/v1/shards/{shardId}/log", "getShardLog", shards::log))
            .summary("The end of standard error of a shard's last run that ended.")
            .answers(StatusCode::OK, Content::Message("ShardLog"), "The end of its log, and where the whole of it is.")
            .fails(
                404,
                &["unknown-shard", "no-run-ended"],
                "This tenant has no such shard, or no run of it has ended.",
            ),
        Operation::get("/v1/dead", "listDead", dead::list)
            .summary("The token's tenant's shards that failed for good, the latest first.")
            .parameter(REQUEST_TYPE)
            .parameter(REASON)
            .parameter(DIED_BEFORE)
            .parameter(LIMIT)
            .parameter(REQUEST_CURSOR)
            .answers(StatusCode::OK, Content::Message("DeadList"), "A page.")
            .leads_to("shardId", "/dead/0/shardId")
            .fails(503, LEDGER_CODES, LEDGER),
        of_shard(Operation::get("/v1/dead/{shardId}", "getDead", dead::show))
            .summary("A dead shard with its runs, the ends of their logs, and what was decided of it.")
            .answers(StatusCode::OK, Content::Message("DeadShard"), "All that is known of it.")
            .fails(404, &["not-dead"], NOT_DEAD),
        of_shard(Operation::post("/v1/dead/{shardId}/replay", "replayDead", dead::replay))
            .summary(
                "Gives a dead shard another attempt, with fresh budgets. Its request runs again; what had succeeded \
                 stays. The answer follows its commit to the ledger.",
            )
            .answers(StatusCode::OK, Content::Message("Replayed"), "The attempt that was ordered.")
            .fails(404, &["not-dead"], NOT_DEAD)
            .fails(409, &["not-replayable"], "Its request takes no attempt any more."),
        of_shard(Operation::post("/v1/dead/{shardId}/purge", "purgeDead", dead::purge))
            .summary("Forgets a dead shard. Its request stays as it ended.")
            .answers(StatusCode::OK, Content::Message("Purged"), "It is forgotten.")
            .fails(404, &["not-dead"], NOT_DEAD),
        Operation::get("/v1/types", "listTypes", overview::types).summary("What can be asked for.").answers(
            StatusCode::OK,
            Content::Message("RequestTypeList"),
            "Every request type of the catalogue.",
        ),
        Operation::get("/v1/fleet", "getFleet", fleet::fleet)
            .summary(
                "The workers as of their last report, the queues and what waits. Whose a lease is, is told of the \
                 token's tenant's own; to an operator's token of all.",
            )
            .answers(StatusCode::OK, Content::Message("FleetStatus"), "The fleet now."),
        Operation::post("/v1/fleet/shares", "setShares", shares::set)
            .summary(
                "Gives priorities other shares of a worker, or of every worker of a fleet, until they are told otherwise \
                 or end. Needs an operator's token.",
            )
            .body("SetShares")
            .answers(
                StatusCode::ACCEPTED,
                Content::Message("SharesAsked"),
                "The workers were asked; their next load reports, in the fleet, show the effect.",
            )
            .fails(
                400,
                &["malformed-body", "unknown-field", "invalid-query", "unknown-query-parameter"],
                "The body or the query cannot be read.",
            )
            .fails(403, &["operator-only"], "The token is not an operator's.")
            .fails(404, &["no-such-worker"], "No live worker is meant.")
            .fails(408, &["body-timeout"], "The body did not arrive in time.")
            .fails(409, &["shares-do-not-fit"], "A worker's capacity is less than what would be guaranteed.")
            .fails(413, &["body-too-large"], "The body is over the limit.")
            .fails(415, &["unsupported-content-type"], "The body is not sent as JSON.")
            .fails(422, &["invalid-shares"], "The body can be read, but means nothing; `field` says what is wrong."),
        Operation::get("/v1/openapi.json", "getOpenApi", openapi::document).summary("This document.").open().answers(
            StatusCode::OK,
            Content::Document,
            "An OpenAPI 3.1 document.",
        ),
    ]
}

fn of_request(operation: Operation) -> Operation {
    operation
        .parameter(REQUEST_ID)
        .fails(400, ID_OR_QUERY, UNREADABLE)
        .fails(404, &["unknown-request"], "This tenant has no such request.")
        .fails(503, LEDGER_CODES, LEDGER)
}

fn of_shard(operation: Operation) -> Operation {
    operation.parameter(SHARD_ID).fails(400, ID_OR_QUERY, UNREADABLE).fails(503, LEDGER_CODES, LEDGER)
}

/// The router of these operations.
pub(super) fn router(operations: Vec<Operation>, serving: &Arc<Serving>) -> Router {
    let mut router = Router::new();
    for operation in operations {
        let names: Vec<&str> =
            operation.parameters.iter().filter(|p| p.place == Place::Query).map(|p| p.name).collect();
        let mut handler = operation.handler.route_layer(middleware::from_fn(move |request: Request, next: Next| {
            let checked = check_query(request.uri(), &names);
            async move {
                match checked {
                    Ok(()) => next.run(request).await,
                    Err(failure) => failure.into_response(),
                }
            }
        }));
        // Added last, so that it comes first.
        if operation.access == Access::Token {
            handler = handler.route_layer(middleware::from_fn_with_state(Arc::clone(serving), require_token));
        }
        router = router.route(operation.path, handler);
    }
    router
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(unknown_route)
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(TraceLayer::new_for_http())
        .with_state(Arc::clone(serving))
}

/// The router adds the header `Allow`.
async fn method_not_allowed(method: Method, uri: Uri) -> Failure {
    let message = format!("{} does not take {method}; the header Allow says what it takes", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "", message)
}

async fn unknown_route(uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    Failure::not_found("unknown-route", "", format!("there is nothing at {path}; /v1/openapi.json says what there is"))
}

#[expect(clippy::needless_pass_by_value, reason = "the layer hands over what was thrown")]
fn answer_panic(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("without a text"), "a handler panicked");
    Failure::internal().into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::collections::HashSet;
    use tower::ServiceExt as _;

    #[test]
    fn operation_ids_are_unique_and_every_operation_says_what_it_answers() {
        let operations = operations();
        let ids: HashSet<_> = operations.iter().map(|operation| operation.id).collect();
        assert_eq!(ids.len(), operations.len());
        for operation in &operations {
            assert!(!operation.answers.is_empty() && !operation.summary.is_empty(), "{}", operation.id);
        }
    }

    #[test]
    fn the_path_parameters_of_every_operation_are_those_in_its_path() {
        for operation in operations() {
            let declared = operation.parameters.iter().filter(|p| p.place == Place::Path).count();
            assert_eq!(operation.path.matches('{').count(), declared, "{}", operation.id);
            for parameter in operation.parameters.iter().filter(|p| p.place == Place::Path) {
                assert!(operation.path.contains(&format!("{{{}}}", parameter.name)), "{}", operation.id);
            }
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_typed_error_that_tells_nothing() {
        async fn fail() -> Response {
            panic!("the secret is 42")
        }
        let router = Router::new().route("/", get(fail)).layer(CatchPanicLayer::custom(answer_panic));
        let request = Request::builder().uri("/").body(axum::body::Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], "internal");
        assert!(!body.to_string().contains("42"));
    }
}
