//! Shares of workers, changed while they run.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use forecastle_admission::Shares;
use forecastle_protos::v1;
use forecastle_resources::{Priority, ResourceVector};

use super::api::Serving;
use super::authentication::Operator;
use super::body::read_json_of_integers;
use super::failure::{Failure, json};
use super::parameter::Given;
use crate::fleet::Worker;

/// Asks a worker or a fleet for other shares. The answer follows once the broker was told; load reports show the effect.
pub(super) async fn set(
    State(serving): State<Arc<Serving>>,
    Extension(Operator(operator)): Extension<Operator>,
    _given: Given,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    if !operator {
        let message = "only an operator's token may change shares";
        return Err(Failure::new(StatusCode::FORBIDDEN, "operator-only", "", message));
    }
    let body: v1::SetShares = read_json_of_integers(&headers, body, serving.max_body).await?;
    let settings = read(&body)?;
    let fleet = Arc::clone(&serving.api.fleet.borrow());
    let mut meant: Vec<_> = fleet.workers.values().filter(|worker| is_meant(worker, &body)).collect();
    if meant.is_empty() {
        let (field, message) = if body.worker_id.is_empty() {
            ("fleet", format!("fleet {} has no live worker", body.fleet))
        } else {
            ("workerId", format!("no live worker has the id {}", body.worker_id))
        };
        return Err(Failure::not_found("no-such-worker", field, message));
    }
    meant.sort_by(|a, b| a.report.worker_id.cmp(&b.report.worker_id));
    for worker in &meant {
        let name = &worker.report.worker_name;
        with(current(worker), &settings).check(&worker.capacity).map_err(|error| {
            Failure::new(StatusCode::CONFLICT, "shares-do-not-fit", "shares", format!("worker {name}: {error}"))
        })?;
    }
    let worker_ids = meant.iter().map(|worker| worker.report.worker_id.clone()).collect();
    serving.api.effects.control.set_shares(body).await;
    Ok(json(StatusCode::ACCEPTED, &v1::SharesAsked { worker_ids }))
}

type Setting = (Priority, ResourceVector, ResourceVector);

fn read(body: &v1::SetShares) -> Result<Vec<Setting>, Failure> {
    let wrong =
        |field: &str, message: String| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-shares", field, message);
    if body.worker_id.is_empty() == body.fleet.is_empty() {
        return Err(wrong("fleet", "name either a worker or a fleet".to_owned()));
    }
    if body.shares.is_empty() {
        return Err(wrong("shares", "name at least one priority".to_owned()));
    }
    let mut settings: Vec<Setting> = Vec::new();
    for (place, setting) in body.shares.iter().enumerate() {
        let field = format!("shares[{place}].priority");
        let priority: Priority = setting.priority.parse().map_err(|error| wrong(&field, format!("{error}")))?;
        if settings.iter().any(|(other, ..)| *other == priority) {
            return Err(wrong(&field, format!("{priority} is named twice")));
        }
        let vector = |given: &Option<v1::ResourceVector>| given.as_ref().map(ResourceVector::from).unwrap_or_default();
        settings.push((priority, vector(&setting.guaranteed), vector(&setting.maximum)));
    }
    Ok(settings)
}

fn is_meant(worker: &Worker, body: &v1::SetShares) -> bool {
    let report = &worker.report;
    let named = if body.worker_id.is_empty() { report.fleet == body.fleet } else { report.worker_id == body.worker_id };
    named && !report.leaving
}

/// What a worker has now, by its last report.
fn current(worker: &Worker) -> Shares {
    let reported = worker.report.shares.iter().filter_map(|share| {
        let vector = |told: &Option<v1::ResourceVector>| told.as_ref().map(ResourceVector::from).unwrap_or_default();
        Some((share.priority.parse().ok()?, vector(&share.guaranteed), vector(&share.maximum)))
    });
    with(Shares::none(), &reported.collect::<Vec<Setting>>())
}

fn with(shares: Shares, settings: &[Setting]) -> Shares {
    settings.iter().cloned().fold(shares, |shares, (priority, guaranteed, maximum)| {
        shares.with_guaranteed(priority, guaranteed).with_maximum(priority, maximum)
    })
}
