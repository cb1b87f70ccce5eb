//! Dead shards: finding, replaying and forgetting what failed for good.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use forecastle_protos::ids::ShardId;
use forecastle_protos::v1;

use super::api::Serving;
use super::authentication::Tenant;
use super::failure::{Failure, json};
use super::parameter::Given;
use crate::clock::now_ms;
use crate::ledger::{DeadListing, Error as LedgerError, Ledger, NotDead};

/// A page of dead shards.
pub(super) async fn list(
    State(serving): State<Arc<Serving>>,
    Extension(Tenant(tenant)): Extension<Tenant>,
    given: Given,
) -> Result<Response, Failure> {
    let listing = DeadListing {
        tenant,
        request_type: given.request_type(),
        reason: given.reason(),
        died_before_ms: given.died_before_ms()?,
        before: given.request_cursor()?,
        limit: given.limit()?,
    };
    let (dead, next) = serving.api.ledger.dead(listing).await?;
    let next_cursor = next.map(|seq| seq.to_string()).unwrap_or_default();
    Ok(json(StatusCode::OK, &v1::DeadList { dead: dead.iter().map(v1::DeadShard::from).collect(), next_cursor }))
}

/// A dead shard with its runs, their logs, and what was decided of it.
pub(super) async fn show(
    State(serving): State<Arc<Serving>>,
    Extension(tenant): Extension<Tenant>,
    given: Given,
) -> Result<Response, Failure> {
    let shard = given.shard_id()?;
    let ledger = &*serving.api.ledger;
    must_be_of(ledger, &tenant, shard).await?;
    let (dead, decisions) = ledger.dead_shard(shard).await?.ok_or(NotDead::Unknown(shard))?;
    let history = ledger.shard_history(shard).await?;
    let told = v1::DeadShard {
        runs: history.ended.iter().map(|recorded| v1::RunEvent::from(&recorded.event)).collect(),
        decisions: decisions.iter().map(v1::Decision::from).collect(),
        ..v1::DeadShard::from(&dead)
    };
    Ok(json(StatusCode::OK, &told))
}

/// Orders another attempt. The answer follows its commit.
pub(super) async fn replay(
    State(serving): State<Arc<Serving>>,
    Extension(tenant): Extension<Tenant>,
    given: Given,
) -> Result<Response, Failure> {
    let shard = given.shard_id()?;
    must_be_of(&*serving.api.ledger, &tenant, shard).await?;
    let (ledger, effects) = (Arc::clone(&serving.api.ledger), serving.api.effects.clone());
    let replay = serving
        .to_the_end(async move {
            let replayed = ledger.replay(shard, now_ms()).await?;
            if let Ok(replay) = &replayed {
                effects.spread(replay.changes.clone()).await;
            }
            Ok::<_, LedgerError>(replayed)
        })
        .await???;
    let (request_id, attempt) = (replay.request.to_string(), replay.attempt);
    Ok(json(StatusCode::OK, &v1::Replayed { shard_id: shard.to_string(), request_id, attempt }))
}

/// Forgets a dead shard. The answer follows its commit.
pub(super) async fn purge(
    State(serving): State<Arc<Serving>>,
    Extension(tenant): Extension<Tenant>,
    given: Given,
) -> Result<Response, Failure> {
    let shard = given.shard_id()?;
    must_be_of(&*serving.api.ledger, &tenant, shard).await?;
    let (ledger, effects) = (Arc::clone(&serving.api.ledger), serving.api.effects.clone());
    serving
        .to_the_end(async move {
            let purged = ledger.purge(shard, now_ms()).await?;
            // The decision is an event for history.
            effects.recorded.notify_waiters();
            Ok::<_, LedgerError>(purged)
        })
        .await???;
    Ok(json(StatusCode::OK, &v1::Purged { shard_id: shard.to_string() }))
}

/// Another tenant's shard is answered like one that is not dead.
async fn must_be_of(ledger: &dyn Ledger, Tenant(tenant): &Tenant, shard: ShardId) -> Result<(), Failure> {
    let head = ledger.head(shard.request).await?.filter(|head| head.tenant == *tenant);
    head.map(drop).ok_or_else(|| NotDead::Unknown(shard).into())
}

impl From<NotDead> for Failure {
    fn from(error: NotDead) -> Self {
        match error {
            NotDead::Unknown(_) => Self::not_found("not-dead", "shardId", error.to_string()),
            NotDead::NotReplayable { .. } => {
                Self::new(StatusCode::CONFLICT, "not-replayable", "shardId", error.to_string())
            }
        }
    }
}
