//! What the unit's owner declared, and the forecaster that believes it.

use std::time::Duration;

use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, Reservation, Resource, ResourceVector};
use serde::{Deserialize, Serialize};

use crate::features::{Features, Source};
use crate::forecast::{Expert, Forecast, Forecaster, Need, NeedQuantile};

/// What the unit's owner declared: a reservation, and bounds that every reservation keeps.
///
/// Zero means "not said" everywhere here: no reservation of that resource, no minimum, **no maximum** (unbounded).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Declared {
    /// What to reserve while nothing better is known.
    pub reservation: Reservation,
    /// No reservation is below this.
    pub minimum: ResourceVector,
    /// No reservation is above this, where an entry is not zero.
    pub maximum: ResourceVector,
}

/// A declaration that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeclaredError {
    /// The minimum of a resource is above its maximum.
    #[error("the declared minimum of {0} is above its maximum")]
    MinimumAboveMaximum(Resource),
    /// The reservation of a resource is below its minimum.
    #[error("the declared reservation of {0} is below its minimum")]
    ReservationBelowMinimum(Resource),
    /// The reservation of a resource is above its maximum.
    #[error("the declared reservation of {0} is above its maximum")]
    ReservationAboveMaximum(Resource),
}

impl Declared {
    /// A declared reservation without bounds.
    pub const fn unbounded(reservation: Reservation) -> Self {
        Self { reservation, minimum: ResourceVector::ZERO, maximum: ResourceVector::ZERO }
    }

    /// The largest memory that may be reserved, or `None` if there is no bound.
    pub const fn maximum_memory(&self) -> Option<Bytes> {
        match self.maximum.memory {
            Bytes::ZERO => None,
            bound => Some(bound),
        }
    }

    /// The nearest vector within the bounds. Should minimum and maximum contradict each other, the maximum wins.
    #[must_use]
    pub fn clamp(&self, vector: &ResourceVector) -> ResourceVector {
        fn bounded(value: u64, maximum: u64) -> u64 {
            if maximum == 0 { value } else { value.min(maximum) }
        }
        let mut inside = vector.max(&self.minimum);
        inside.cpu = CpuMillis(bounded(inside.cpu.0, self.maximum.cpu.0));
        inside.memory = Bytes(bounded(inside.memory.0, self.maximum.memory.0));
        inside.io = BytesPerSecond(bounded(inside.io.0, self.maximum.io.0));
        inside.scratch = Bytes(bounded(inside.scratch.0, self.maximum.scratch.0));
        for (name, amount) in &mut inside.named {
            *amount = bounded(*amount, self.maximum.named.get(name).copied().unwrap_or(0));
        }
        inside
    }

    /// Whether the three parts agree; a reservation that was not said agrees with everything.
    pub fn check(&self) -> Result<(), DeclaredError> {
        let names = [&self.reservation.vector, &self.minimum, &self.maximum]
            .into_iter()
            .flat_map(|vector| vector.named.keys().cloned().map(Resource::Named));
        let plain = [Resource::Cpu, Resource::Memory, Resource::Io, Resource::Scratch];
        for resource in plain.into_iter().chain(names) {
            let reserved = self.reservation.vector.get(&resource);
            let (minimum, maximum) = (self.minimum.get(&resource), self.maximum.get(&resource));
            if maximum > 0 && minimum > maximum {
                return Err(DeclaredError::MinimumAboveMaximum(resource));
            }
            if reserved > 0 && reserved < minimum {
                return Err(DeclaredError::ReservationBelowMinimum(resource));
            }
            if maximum > 0 && reserved > maximum {
                return Err(DeclaredError::ReservationAboveMaximum(resource));
            }
        }
        Ok(())
    }
}

/// Forecasts what was declared, and a default where nothing was; the ladder doubles up to the declared maximum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredForecaster {
    /// CPU, memory and duration where the owner said nothing.
    pub default: Reservation,
}

impl Default for DeclaredForecaster {
    /// One core and 512 MiB for a minute.
    fn default() -> Self {
        Self {
            default: Reservation::new(
                ResourceVector::new(CpuMillis::cores(1), Bytes::mib(512)),
                Duration::from_mins(1),
            ),
        }
    }
}

/// The probability that a declared value is taken to hold with: owners declare what is enough nearly always.
const DECLARED_PROBABILITY: f64 = 0.95;

impl DeclaredForecaster {
    /// The declared reservation, completed from the default and within the bounds.
    pub fn reservation(&self, declared: &Declared) -> Reservation {
        let mut reservation = declared.reservation.clone();
        if reservation.vector.cpu == CpuMillis::ZERO {
            reservation.vector.cpu = self.default.vector.cpu;
        }
        if reservation.vector.memory == Bytes::ZERO {
            reservation.vector.memory = self.default.vector.memory;
        }
        if reservation.duration.is_zero() {
            reservation.duration = self.default.duration;
        }
        reservation.vector = declared.clamp(&reservation.vector);
        reservation
    }

    /// A forecast of exactly this reservation.
    pub(crate) fn of_reservation(
        source: Source,
        version: String,
        reservation: Reservation,
        declared: &Declared,
    ) -> Forecast {
        let need = Need::new(vec![NeedQuantile {
            probability: DECLARED_PROBABILITY,
            cpu_millis: reservation.vector.cpu.0 as f64,
            memory_bytes: reservation.vector.memory.0 as f64,
            io_bytes_per_second: reservation.vector.io.0 as f64,
            duration: reservation.duration,
        }]);
        Forecast::new(source, version, need, DECLARED_PROBABILITY, reservation, &[], declared)
    }
}

impl Forecaster for DeclaredForecaster {
    fn forecast(&self, _features: &Features, declared: &Declared) -> Forecast {
        let said =
            declared.reservation.vector.cpu > CpuMillis::ZERO || declared.reservation.vector.memory > Bytes::ZERO;
        let source = if said { Source::Declared } else { Source::Default };
        Self::of_reservation(source, String::new(), self.reservation(declared), declared)
    }
}

impl Expert for DeclaredForecaster {
    fn consider(&self, features: &Features, declared: &Declared) -> Option<Forecast> {
        Some(self.forecast(features, declared))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(memory: u64, minimum: u64, maximum: u64) -> Declared {
        Declared {
            reservation: Reservation::new(
                ResourceVector::new(CpuMillis(500), Bytes::mib(memory)),
                Duration::from_secs(10),
            ),
            minimum: ResourceVector::new(CpuMillis::ZERO, Bytes::mib(minimum)),
            maximum: ResourceVector::new(CpuMillis::ZERO, Bytes::mib(maximum)),
        }
    }

    #[test]
    fn the_declared_reservation_is_forecast_and_its_ladder_doubles_to_the_maximum() {
        let declared = declared(64, 0, 300);
        let forecast = DeclaredForecaster::default().forecast(&Features::default(), &declared);
        assert_eq!(forecast.source, Source::Declared);
        assert_eq!(forecast.reservation, declared.reservation);
        assert_eq!(forecast.ladder, [64, 128, 256, 300].map(Bytes::mib));
        assert_eq!(forecast.version, "");
    }

    #[test]
    fn what_nobody_said_comes_from_the_default() {
        let forecaster = DeclaredForecaster::default();
        let forecast = forecaster.forecast(&Features::default(), &Declared::default());
        assert_eq!(forecast.source, Source::Default);
        assert_eq!(forecast.reservation, forecaster.default);

        let mut only_memory = declared(64, 0, 0);
        only_memory.reservation.vector.cpu = CpuMillis::ZERO;
        only_memory.reservation.duration = Duration::ZERO;
        let forecast = forecaster.forecast(&Features::default(), &only_memory);
        assert_eq!(forecast.source, Source::Declared);
        assert_eq!(forecast.reservation.vector, ResourceVector::new(CpuMillis::cores(1), Bytes::mib(64)));
        assert_eq!(forecast.reservation.duration, Duration::from_mins(1));
    }

    #[test]
    fn named_resources_are_reserved_as_declared_and_clamped() {
        let mut declared = declared(64, 0, 0);
        declared.reservation.vector = declared.reservation.vector.with_named("gpu", 4).with_named("licence", 3);
        declared.maximum = ResourceVector::ZERO.with_named("gpu", 2);
        let forecast = DeclaredForecaster::default().forecast(&Features::default(), &declared);
        assert_eq!(forecast.reservation.vector.get(&Resource::Named("gpu".into())), 2);
        assert_eq!(forecast.reservation.vector.get(&Resource::Named("licence".into())), 3);
    }

    #[test]
    fn scratch_is_reserved_as_declared_and_clamped() {
        let mut declared = declared(64, 0, 0);
        declared.reservation.vector.scratch = Bytes::gib(4);
        let scratch = |declared: &Declared| {
            DeclaredForecaster::default().forecast(&Features::default(), declared).reservation.vector.scratch
        };
        assert_eq!(scratch(&declared), Bytes::gib(4));
        declared.maximum.scratch = Bytes::gib(2);
        assert_eq!(scratch(&declared), Bytes::gib(2));
        assert_eq!(declared.check(), Err(DeclaredError::ReservationAboveMaximum(Resource::Scratch)));
    }

    #[test]
    fn contradictions_are_named() {
        assert_eq!(declared(64, 32, 128).check(), Ok(()));
        assert_eq!(declared(0, 32, 128).check(), Ok(()), "a reservation that was not said");
        assert_eq!(declared(64, 256, 128).check(), Err(DeclaredError::MinimumAboveMaximum(Resource::Memory)));
        assert_eq!(declared(64, 65, 128).check(), Err(DeclaredError::ReservationBelowMinimum(Resource::Memory)));
        let error = declared(256, 32, 128).check().unwrap_err();
        assert_eq!(error.to_string(), "the declared reservation of memory is above its maximum");
        let mut named = declared(64, 0, 0);
        named.minimum = named.minimum.with_named("gpu", 2);
        named.maximum = named.maximum.with_named("gpu", 1);
        assert_eq!(named.check(), Err(DeclaredError::MinimumAboveMaximum(Resource::Named("gpu".into()))));
    }

    #[test]
    fn the_maximum_wins_over_a_contradicting_minimum() {
        let clamped = declared(64, 256, 128).clamp(&ResourceVector::ZERO);
        assert_eq!(clamped.memory, Bytes::mib(128));
    }
}
