//! The fleet, its queues and what waits for it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use forecastle_protos::v1;

use super::api::Serving;
use super::authentication::{Operator, Tenant};
use super::failure::json;
use crate::clock::now_ms;

/// Every live worker, the queues and the backlog. An operator sees whose every lease is; others see that of their own.
pub(super) async fn fleet(
    State(serving): State<Arc<Serving>>,
    Extension(Tenant(tenant)): Extension<Tenant>,
    Extension(Operator(operator)): Extension<Operator>,
) -> Response {
    let view = Arc::clone(&serving.api.fleet.borrow());
    let queues = serving.api.effects.dispatcher.view();
    let mut status = v1::FleetStatus {
        workers: view.workers_status(),
        at_unix_ms: now_ms(),
        operator,
        queues: queues.queues.clone(),
        backlog: queues.backlog.clone(),
    };
    if !operator {
        let reports = status.workers.iter_mut().filter_map(|worker| worker.report.as_mut());
        reports.flat_map(|report| &mut report.leases).filter(|lease| lease.tenant != tenant).for_each(conceal);
    }
    json(StatusCode::OK, &status)
}

/// Leaves of a lease what it takes of the worker, and from whom it is taken nothing.
fn conceal(lease: &mut v1::LeaseReport) {
    for identity in
        [&mut lease.run_id, &mut lease.shard_id, &mut lease.tenant, &mut lease.request_type, &mut lease.unit]
    {
        identity.clear();
    }
}
