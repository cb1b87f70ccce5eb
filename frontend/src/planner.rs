//! The planner service: takes admitted requests in order, looks at their input, plans, and records the plan before
//! any shard is released.
//!
//! It keeps nothing: what is admitted and not planned stands in the ledger, so a crash at any point means only that
//! the same request is planned again, and the ledger records a plan once.

use std::sync::Arc;
use std::time::Duration;

use forecastle_planning::{Plan, PlanInput, plan};
use forecastle_protos::ids::RequestId;
use forecastle_protos::v1;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::analysis::{AnalysisError, analyse};
use crate::catalogue_store::CatalogueStore;
use crate::clock::now_ms;
use crate::crash_points;
use crate::effects::Effects;
use crate::intake::detail;
use crate::ledger::{Error, Ledger, RequestHead};
use crate::roots::AllowedRoots;

/// Requests planned between two looks at the ledger.
const PAGE: u32 = 64;

/// The pause after the ledger could not be reached.
const PAUSE: Duration = Duration::from_millis(500);

/// The service.
pub struct Planner {
    /// The truth.
    pub ledger: Arc<dyn Ledger>,
    /// What can be asked for.
    pub catalogue: Arc<CatalogueStore>,
    /// Where inputs may come from.
    pub roots: AllowedRoots,
    /// Wakes it.
    pub admitted: Arc<Notify>,
    /// Who hears of changes.
    pub effects: Effects,
}

impl Planner {
    /// Plans until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let planned = match self.plan_page(&stop).await {
                Ok(planned) => planned,
                Err(error) => {
                    tracing::error!(%error, "planning waits for the ledger");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(PAUSE) => continue,
                    }
                }
            };
            if stop.is_cancelled() {
                return;
            }
            if planned == 0 {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.admitted.notified() => {}
                }
            }
        }
    }

    async fn plan_page(&self, stop: &CancellationToken) -> Result<usize, Error> {
        let page = self.ledger.unplanned(PAGE).await?;
        for &request in &page {
            if stop.is_cancelled() {
                break;
            }
            self.plan_one(request).await?;
        }
        Ok(page.len())
    }

    async fn plan_one(&self, request: RequestId) -> Result<(), Error> {
        let Some(head) = self.ledger.head(request).await? else { return Ok(()) };
        crash_points::PLANNER_BEFORE_COMMIT.hit();
        let changes = match self.make_plan(&head).await {
            Ok(plan) => {
                tracing::info!(
                    %request,
                    request_type = head.request_type,
                    shards = plan.stages.iter().map(|s| s.shards.len()).sum::<usize>(),
                    "planned"
                );
                // Durable: the plan and the stages it fires, in one commit.
                self.ledger.record_plan(request, plan).await?
            }
            Err(error) => {
                tracing::warn!(%request, request_type = head.request_type, error = error.message, "cannot be planned");
                self.ledger.fail_request(request, error, now_ms()).await?
            }
        };
        crash_points::PLANNER_AFTER_COMMIT.hit();
        self.effects.spread(changes).await;
        Ok(())
    }

    /// A plan, or why there is none. Off the runtime's threads: it reads folders and may sort many items.
    async fn make_plan(&self, head: &RequestHead) -> Result<Plan, v1::ErrorDetail> {
        let catalogue = self.catalogue.current();
        let (roots, input, name) = (self.roots.clone(), head.body.input.clone(), head.request_type.clone());
        let planned = tokio::task::spawn_blocking(move || {
            let request_type = catalogue
                .request_type(&name)
                .map_err(|error| detail("unknown-request-type", "requestType", error.to_string()))?;
            let items = analyse(input.as_ref(), request_type, &roots)
                .map_err(|error: AnalysisError| detail(error.code(), "input", error.to_string()))?;
            plan(&PlanInput { request_type, units: catalogue.units(), items: &items })
                .map_err(|error| detail("cannot-plan", "input", error.to_string()))
        });
        planned.await.unwrap_or_else(|error| Err(detail("cannot-plan", "", format!("planning failed: {error}"))))
    }
}
