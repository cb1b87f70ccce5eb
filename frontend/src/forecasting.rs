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
        scratch: unit.maximum.scratch.unwrap_or(Bytes::ZERO),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Counters, ShardState};
    use forecastle_catalogue::Catalogue;
    use forecastle_forecast::DeclaredForecaster;
    use forecastle_protos::ids::{RequestId, ShardId};
    use forecastle_resources::Priority;

    fn head() -> RequestHead {
        RequestHead {
            id: RequestId::new(),
            seq: 1,
            tenant: "acme".to_owned(),
            request_type: "t".to_owned(),
            fleet: "default".to_owned(),
            priority: Priority::Standard,
            deadline_ms: None,
            created_ms: 0,
            body: v1::SubmitRequest::default(),
        }
    }

    /// A shard of unit `u` that has failed so, with this memory reserved at last.
    fn spec(counters: Counters, last: Option<Bytes>) -> ShardSpec {
        let last =
            last.map(|memory| Reservation::new(ResourceVector::new(CpuMillis(500), memory), Duration::from_secs(10)));
        ShardSpec {
            shard: ShardId { request: RequestId::new(), stage: 0, index: 0 },
            state: ShardState::Ready,
            stage_name: "s".to_owned(),
            unit: "u".to_owned(),
            items: Vec::new(),
            next_attempt: 1,
            counters,
            last_reservation: last,
            checkpoint: None,
            depends_on: Vec::new(),
        }
    }

    fn sized(unit: &str, spec: &ShardSpec) -> Sized {
        let types = r#"
version = 1
[types.t]
input = "directory"
stages = [{ name = "s", units = ["u"], over = "items" }]
[units.u]
"#;
        let text = format!("{types}{unit}");
        let catalogue = Catalogue::parse(&text).unwrap();
        let sizing = Sizing::new(Arc::new(DeclaredForecaster::default()), ReferenceWorker::default());
        sizing.size(&head(), spec, catalogue.unit("u").unwrap())
    }

    const COMMAND: &str = r#"
command = ["/bin/true"]
timeout = "1min"
maximum = { memory = "1GiB" }
reserve = { cpu = "500m", memory = "64MiB", duration = "10s" }
"#;

    #[test]
    fn after_kills_for_memory_an_attempt_gets_more_up_to_the_maximum_and_never_less() {
        let memory = |kills: u32, last: Option<Bytes>| {
            let counters = Counters { out_of_memory: kills, ..Counters::default() };
            sized(COMMAND, &spec(counters, last)).reservation.vector.memory
        };
        assert_eq!(memory(0, None), Bytes::mib(64));
        assert_eq!(memory(1, Some(Bytes::mib(64))), Bytes::mib(128));
        assert!(memory(1, Some(Bytes::mib(200))) > Bytes::mib(200), "its lease had grown");
        assert_eq!(memory(4, Some(Bytes::mib(512))), Bytes::gib(1));
        // The maximum was lowered since: what it had is what is tried.
        assert_eq!(memory(1, Some(Bytes::gib(2))), Bytes::gib(2));
        // A task error after a kill does not take anything back.
        let counters = Counters { out_of_memory: 1, errors: 1, ..Counters::default() };
        let after = sized(COMMAND, &spec(counters, Some(Bytes::mib(256)))).reservation.vector.memory;
        assert!(after >= Bytes::mib(256), "{after}");
    }

    #[test]
    fn after_timeouts_limit_and_duration_grow_and_memory_does_not() {
        let of = |timeouts| {
            let counters = Counters { timeouts, ..Counters::default() };
            sized(COMMAND, &spec(counters, (timeouts > 0).then_some(Bytes::mib(64))))
        };
        let (none, one, two) = (of(0), of(1), of(2));
        assert_eq!([none.timeout, one.timeout, two.timeout], [1, 2, 4].map(Duration::from_mins));
        assert_eq!(none.reservation.duration, Duration::from_secs(10));
        assert_eq!(one.reservation.duration, Duration::from_mins(1), "it ran for so long and was not done");
        assert_eq!(two.reservation.duration, Duration::from_mins(2));
        assert_eq!(two.reservation.vector, none.reservation.vector);
    }

    #[test]
    fn the_class_follows_the_reservation() {
        let class = |reserve: &str, how: &str| {
            let unit = format!("{how}\nreserve = {reserve}");
            sized(&unit, &spec(Counters::default(), None)).class
        };
        let (command, task) = (r#"command = ["/bin/true"]"#, r#"task = "t.t""#);
        assert_eq!(class(r#"{ cpu = "1", memory = "1GiB", duration = "10s" }"#, command), SizeClass::S);
        assert_eq!(class(r#"{ cpu = "2", memory = "1GiB", duration = "10s" }"#, command), SizeClass::M);
        assert_eq!(class(r#"{ cpu = "1", memory = "5GiB", duration = "10s" }"#, command), SizeClass::L);
        assert_eq!(class(r#"{ cpu = "8", memory = "1GiB", duration = "10s" }"#, command), SizeClass::Xl);
        assert_eq!(class(r#"{ cpu = "100m", memory = "1MiB", duration = "50ms" }"#, task), SizeClass::Tiny);
        assert_eq!(class(r#"{ cpu = "100m", memory = "1MiB", duration = "50ms" }"#, command), SizeClass::S);
    }
}
