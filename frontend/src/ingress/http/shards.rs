//! One shard: what is known of it, and its log.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use forecastle_protos::ids::ShardId;
use forecastle_protos::v1;

use super::api::Serving;
use super::authentication::Tenant;
use super::explain::{Facts, explanation};
use super::failure::{Failure, json};
use super::parameter::Given;
use crate::clock::now_ms;
use crate::ledger::{EventKind, Ledger, RequestHead, ShardSpec};

/// Everything known of a shard.
pub(super) async fn explain(
    State(serving): State<Arc<Serving>>,
    Extension(tenant): Extension<Tenant>,
    given: Given,
) -> Result<Response, Failure> {
    let shard = given.shard_id()?;
    let api = &serving.api;
    let ledger = &*api.ledger;
    let (head, spec) = shard_of(ledger, &tenant, shard).await?;
    let history = ledger.shard_history(shard).await?;
    let status = ledger.status(shard.request).await?.ok_or_else(|| unknown(shard))?;
    let catalogue = api.catalogue.current();
    let next = catalogue.unit(&spec.unit).ok().map(|unit| api.sizing.size(&head, &spec, unit));
    let fleet = Arc::clone(&api.fleet.borrow());
    let facts = Facts {
        head: &head,
        spec: &spec,
        history: &history,
        status: &status,
        next: next.as_ref(),
        fleet: &fleet,
        now_ms: now_ms(),
    };
    Ok(json(StatusCode::OK, &explanation(&facts)))
}

/// The end of the log of the last run that ended.
pub(super) async fn log(
    State(serving): State<Arc<Serving>>,
    Extension(tenant): Extension<Tenant>,
    given: Given,
) -> Result<Response, Failure> {
    let shard = given.shard_id()?;
    let ledger = &*serving.api.ledger;
    shard_of(ledger, &tenant, shard).await?;
    let history = ledger.shard_history(shard).await?;
    let last = history.ended.into_iter().rev().find_map(|recorded| match recorded.event.kind {
        EventKind::Completed(completed) => Some((recorded.event.run, completed)),
        EventKind::Claimed => None,
    });
    let Some((run, completed)) = last else {
        let message = format!("no run of shard {shard} has ended yet, and a log comes with the end of a run");
        return Err(Failure::not_found("no-run-ended", "shardId", message));
    };
    let log = v1::ShardLog {
        shard_id: shard.to_string(),
        run_id: run.to_string(),
        tail: completed.log_tail,
        output_uri: completed.output_uri,
    };
    Ok(json(StatusCode::OK, &log))
}

fn unknown(shard: ShardId) -> Failure {
    Failure::not_found("unknown-shard", "shardId", format!("there is no shard {shard}"))
}

/// A shard of a tenant's own request. Another tenant's is answered like one that does not exist.
async fn shard_of(
    ledger: &dyn Ledger,
    Tenant(tenant): &Tenant,
    shard: ShardId,
) -> Result<(RequestHead, ShardSpec), Failure> {
    let head = ledger.head(shard.request).await?.filter(|head| head.tenant == *tenant);
    let head = head.ok_or_else(|| unknown(shard))?;
    let spec = ledger.specs(vec![shard]).await?.pop().ok_or_else(|| unknown(shard))?;
    Ok((head, spec))
}
