//! What is expected to start soon, for the workers to make ready.
//!
//! The dispatcher says what it releases; from that a rate is forecast for each request type and unit, and every fleet is
//! told its own. It is advice: a message that is lost is followed by the next, and a worker that hears none makes
//! nothing ready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forecastle_forecast::DemandForecaster;
use forecastle_protos::v1;
use forecastle_resources::ResourceVector;
use metrics::gauge;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::fleet::FleetView;
use crate::ledger::RequestHead;
use crate::metric_definitions::STARTS_EXPECTED;

/// How often fleets are told.
const EVERY: Duration = Duration::from_secs(2);

/// How far ahead.
const HORIZON: Duration = Duration::from_secs(10);

/// What is released, as it is released. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Demand {
    began: Instant,
    observed: Arc<Mutex<Observed>>,
}

#[derive(Debug, Default)]
struct Observed {
    forecaster: DemandForecaster<Key>,
    /// What the last shard of each reserved.
    reservations: BTreeMap<Key, ResourceVector>,
    /// Fleets that were told of something.
    told: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    fleet: String,
    request_type: String,
    unit: String,
}

impl Default for Demand {
    fn default() -> Self {
        Self { began: Instant::now(), observed: Arc::default() }
    }
}

impl Demand {
    /// A shard was released.
    pub fn released(&self, head: &RequestHead, unit: &str, reservation: &ResourceVector) {
        let (fleet, request_type) = (head.fleet.clone(), head.request_type.clone());
        let key = Key { fleet, request_type, unit: unit.to_owned() };
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        observed.forecaster.started(key.clone(), self.began.elapsed());
        observed.reservations.insert(key, reservation.clone());
    }

    /// What each fleet is to be told now: also those that were told of something before and have nothing to expect.
    fn messages(&self, fleets: &FleetView) -> Vec<v1::Demand> {
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        let Observed { forecaster, reservations, told } = &mut *observed;
        let mut units: BTreeMap<String, Vec<v1::UnitDemand>> =
            told.drain(..).map(|fleet| (fleet, Vec::new())).collect();
        let mut known = BTreeMap::new();
        for (key, starts) in forecaster.expected(self.began.elapsed(), HORIZON) {
            let reservation = reservations.remove(key).unwrap_or_default();
            units.entry(key.fleet.clone()).or_default().push(v1::UnitDemand {
                unit: key.unit.clone(),
                request_type: key.request_type.clone(),
                starts,
                reservation: Some((&reservation).into()),
            });
            known.insert(key.clone(), reservation);
        }
        // What the forecaster has forgotten is forgotten here.
        for gone in std::mem::replace(reservations, known).into_keys() {
            gauge!(STARTS_EXPECTED, "fleet" => gone.fleet, "type" => gone.request_type, "unit" => gone.unit).set(0.0);
        }
        *told = units.iter().filter(|(_, units)| !units.is_empty()).map(|(fleet, _)| fleet.clone()).collect();
        let message = |(fleet, units): (String, Vec<v1::UnitDemand>)| {
            let capacity =
                fleets.claiming(&fleet).fold(ResourceVector::ZERO, |sum, worker| sum.saturating_add(&worker.capacity));
            let horizon_ms = u32::try_from(HORIZON.as_millis()).unwrap_or(u32::MAX);
            v1::Demand { fleet, horizon_ms, capacity: Some((&capacity).into()), units }
        };
        units.into_iter().map(message).collect()
    }

    /// Tells fleets until told to stop.
    pub async fn run(self, fleets: watch::Receiver<Arc<FleetView>>, control: Control, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let view = Arc::clone(&fleets.borrow());
            for message in self.messages(&view) {
                for unit in &message.units {
                    let (fleet, request_type) = (message.fleet.clone(), unit.request_type.clone());
                    gauge!(STARTS_EXPECTED, "fleet" => fleet, "type" => request_type, "unit" => unit.unit.clone())
                        .set(unit.starts);
                }
                control.expect(message).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_protos::ids::RequestId;
    use forecastle_resources::{Bytes, CpuMillis, Priority};

    fn head(fleet: &str) -> RequestHead {
        RequestHead {
            id: RequestId::new(),
            seq: 1,
            tenant: "t".to_owned(),
            request_type: "archive".to_owned(),
            fleet: fleet.to_owned(),
            priority: Priority::Batch,
            deadline_ms: None,
            created_ms: 0,
            body: v1::SubmitRequest::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_fleet_is_told_its_own_and_once_that_nothing_is_left() {
        let (demand, view) = (Demand::default(), FleetView::default());
        let vector = |memory| ResourceVector::new(CpuMillis::cores(1), Bytes::mib(memory));
        for memory in [64, 96] {
            demand.released(&head("a"), "compress", &vector(memory));
        }
        demand.released(&head("b"), "index", &vector(32));
        let told = demand.messages(&view);
        let summary: Vec<_> = told
            .iter()
            .map(|told| {
                let unit = &told.units[0];
                (told.fleet.as_str(), unit.unit.as_str(), unit.request_type.as_str(), unit.starts.round())
            })
            .collect();
        assert_eq!(summary, [("a", "compress", "archive", 2.0), ("b", "index", "archive", 1.0)]);
        let reserved = told[0].units[0].reservation.as_ref().map(ResourceVector::from);
        assert_eq!(reserved, Some(vector(96)), "what the last one reserved");

        tokio::time::advance(Duration::from_hours(1)).await;
        let told = demand.messages(&view);
        assert!(told.len() == 2 && told.iter().all(|told| told.units.is_empty()), "{told:?}");
        assert!(demand.messages(&view).is_empty());
    }
}
