//! From what the ledger knows of a shard to features, and from a forecast to a reservation and a size class.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forecastle_catalogue::Unit;
use forecastle_forecast::{Declared, Features, Forecast, Forecaster, ParameterValue};
use forecastle_protos::v1;
use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, ReferenceWorker, Reservation, ResourceVector, SizeClass};
use serde_json::Value;

use crate::ledger::{RequestHead, ShardSpec};

/// What an attempt reserves, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Sized {
    /// What is reserved.
    pub reservation: Reservation,
    /// The size class.
    pub class: SizeClass,
    /// The forecast behind it.
    pub forecast: v1::Forecast,
    /// Wall-clock limit of the run.
    pub timeout: Duration,
}

/// Sizes attempts. Cheap to clone.
#[derive(Clone)]
pub struct Sizing {
    forecaster: Arc<dyn Forecaster>,
    reference: ReferenceWorker,
}

impl Sizing {
    /// A sizing by `forecaster`, with classes measured against `reference`.
    pub fn new(forecaster: Arc<dyn Forecaster>, reference: ReferenceWorker) -> Self {
        Self { forecaster, reference }
    }

    /// Sizes the next attempt of a shard.
    pub fn size(&self, head: &RequestHead, spec: &ShardSpec, unit: &Unit) -> Sized {
        let declared = declared(unit);
        let forecast = self.forecaster.forecast(&features(head, spec), &declared);
        let kills = spec.counters.out_of_memory;
        let last = spec.last_reservation.as_ref().map_or(Bytes::ZERO, |last| last.vector.memory);
        // The failure policy has ended shards that were killed at their unit's maximum; if the maximum was lowered
        // since, the most that may be reserved is tried.
        let reservation = forecast.reservation_after(kills, last, &declared).unwrap_or_else(|| {
            Reservation::new(declared.clamp(&forecast.reservation.vector), forecast.reservation.duration)
        });
        // An attempt after a kill that was not for memory never gets less than the last one had.
        let reservation = match &spec.last_reservation {
            Some(last) if kills > 0 => {
                let memory = reservation.vector.memory.max(last.vector.memory);
                Reservation::new(ResourceVector { memory, ..reservation.vector }, reservation.duration)
            }
            _ => reservation,
        };
        let timeouts = spec.counters.timeouts;
        let reservation = match timeouts.checked_sub(1) {
            // It ran that long and was not done.
            Some(earlier) => {
                Reservation { duration: reservation.duration.max(time_limit(unit, earlier)), ..reservation }
            }
            None => reservation,
        };
        let class = self.reference.class_of(&reservation, unit.is_in_process());
        Sized { reservation, class, forecast: to_wire(&forecast), timeout: time_limit(unit, timeouts) }
    }
}

/// By how much the time limit of a run grows with each timeout before it.
const TIMEOUT_GROWTH: u32 = 2;

/// The wall-clock limit of a run after so many timeouts: the unit's, twice as long after each.
pub fn time_limit(unit: &Unit, timeouts: u32) -> Duration {
    unit.timeout.saturating_mul(TIMEOUT_GROWTH.saturating_pow(timeouts))
}

/// What the unit's owner declared.
pub fn declared(unit: &Unit) -> Declared {
    // A maximum of zero is none.
    let maximum = ResourceVector {
        cpu: unit.maximum.cpu.unwrap_or(CpuMillis::ZERO),
        memory: unit.maximum.memory.unwrap_or(Bytes::ZERO),
        io: unit.maximum.io.unwrap_or(BytesPerSecond::ZERO),
        named: BTreeMap::new(),
    };
    Declared { reservation: unit.reserve.clone(), minimum: unit.minimum.clone(), maximum }
}

/// What is known of a shard before it runs.
pub fn features(head: &RequestHead, spec: &ShardSpec) -> Features {
    let input_bytes = spec.items.iter().fold(0u64, |sum, item| sum.saturating_add(item.bytes));
    Features {
        request_type: head.request_type.clone(),
        unit: spec.unit.clone(),
        tenant: head.tenant.clone(),
        input_bytes,
        input_items: u32::try_from(spec.items.len()).unwrap_or(u32::MAX),
        parameters: parameters(head.body.parameters.as_ref()),
        node_class: None,
    }
}

/// The parameters of a request as features; what is no number, text or flag says nothing.
pub fn parameters(given: Option<&pbjson_types::Struct>) -> BTreeMap<String, ParameterValue> {
    let Some(Ok(Value::Object(map))) = given.map(serde_json::to_value) else { return BTreeMap::new() };
    map.into_iter()
        .filter_map(|(name, value)| {
            let value = match value {
                Value::Number(number) => ParameterValue::Number(number.as_f64()?),
                Value::String(text) => ParameterValue::Text(text),
                Value::Bool(flag) => ParameterValue::Flag(flag),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((name, value))
        })
        .collect()
}

fn to_wire(forecast: &Forecast) -> v1::Forecast {
    v1::Forecast {
        source: forecast.source.as_str().to_owned(),
        model_version: forecast.version.clone(),
        need: forecast
            .need
            .iter()
            .map(|quantile| v1::NeedQuantile {
                probability: quantile.probability,
                cpu_millis: quantile.cpu_millis,
                memory_bytes: quantile.memory_bytes,
                io_bytes_per_second: quantile.io_bytes_per_second,
                duration_ms: quantile.duration.as_secs_f64() * 1000.0,
            })
            .collect(),
        memory_ladder_bytes: forecast.ladder.iter().map(|bytes| bytes.0).collect(),
        quantile: forecast.quantile,
    }
}
