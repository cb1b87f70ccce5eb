//! What a forecast is, and who makes one.

use std::time::Duration;

use forecastle_resources::{Bytes, Reservation};
use serde::{Deserialize, Serialize};

use crate::declared::Declared;
use crate::features::{Features, Source};
use crate::ladder;

/// One quantile of every quantity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NeedQuantile {
    /// The probability in (0, 1) that the actual use is at most this.
    pub probability: f64,
    /// Mean CPU over the run, in thousandths of a core.
    pub cpu_millis: f64,
    /// Largest memory, in bytes.
    pub memory_bytes: f64,
    /// Mean I/O rate over the run, in bytes per second.
    pub io_bytes_per_second: f64,
    /// From start to end.
    pub duration: Duration,
}

/// Quantiles in the order of their probability, none of which crosses another.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Need {
    /// The quantiles, the lowest probability first.
    pub quantiles: Vec<NeedQuantile>,
}

impl Need {
    /// Sorts the quantiles by probability, and raises each entry to the one below it where they cross. Entries that
    /// are no finite number ≥ 0 count as zero.
    pub fn new(mut quantiles: Vec<NeedQuantile>) -> Self {
        let sane = |value: f64| if value.is_finite() { value.max(0.0) } else { 0.0 };
        quantiles.sort_by(|a, b| a.probability.total_cmp(&b.probability));
        let (mut cpu, mut memory, mut io, mut duration) = (0.0_f64, 0.0_f64, 0.0_f64, Duration::ZERO);
        for quantile in &mut quantiles {
            cpu = cpu.max(sane(quantile.cpu_millis));
            memory = memory.max(sane(quantile.memory_bytes));
            io = io.max(sane(quantile.io_bytes_per_second));
            duration = duration.max(quantile.duration);
            (quantile.cpu_millis, quantile.memory_bytes, quantile.io_bytes_per_second) = (cpu, memory, io);
            quantile.duration = duration;
        }
        Self { quantiles }
    }
}

/// What a shard will need, and what to reserve for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// What it came from.
    pub source: Source,
    /// The version of the profile or model; empty for declared and default values.
    pub version: String,
    /// Quantiles of need, the lowest probability first; they never cross.
    pub need: Vec<NeedQuantile>,
    /// Memory of the 1st, 2nd, … attempt after kills for memory; rises strictly.
    pub ladder: Vec<Bytes>,
    /// The quantile of memory that the reservation stands for, before margins and declared bounds.
    pub quantile: f64,
    /// What the first attempt reserves, within the declared bounds. Its duration is the predicted 95th percentile:
    /// what lending and backfill may count on.
    pub reservation: Reservation,
}

impl Forecast {
    /// A forecast whose reservation keeps the declared bounds and whose ladder begins there, goes on with those of the
    /// `planned` rungs that are above, and doubles from there.
    pub fn new(
        source: Source,
        version: String,
        need: Need,
        quantile: f64,
        mut reservation: Reservation,
        planned: &[Bytes],
        declared: &Declared,
    ) -> Self {
        reservation.vector = declared.clamp(&reservation.vector);
        let ladder = ladder::completed(reservation.vector.memory, planned, declared.maximum_memory());
        Self { source, version, need: need.quantiles, ladder, quantile, reservation }
    }

    /// The quantile of the smallest probability that is at least `probability`, else the highest there is.
    pub fn need_at(&self, probability: f64) -> Option<&NeedQuantile> {
        self.need.iter().find(|quantile| quantile.probability >= probability).or_else(|| self.need.last())
    }

    /// What the next attempt reserves after `oom_kills` kills for memory, the last of them at `last_limit`.
    ///
    /// The first rung above `last_limit`: the lease may have been grown beyond its rung, and the declaration may have
    /// changed since the forecast. `None`: that limit is the maximum already,
    /// the shard is infeasible. Without kills it is the first reservation, within the bounds.
    pub fn reservation_after(&self, oom_kills: u32, last_limit: Bytes, declared: &Declared) -> Option<Reservation> {
        let mut vector = declared.clamp(&self.reservation.vector);
        if oom_kills > 0 {
            let memory = ladder::next_rung(&self.ladder, last_limit);
            vector.memory = declared.clamp(&forecastle_resources::ResourceVector { memory, ..vector.clone() }).memory;
            if vector.memory <= last_limit {
                return None;
            }
        }
        Some(Reservation::new(vector, self.reservation.duration))
    }
}

/// Forecasts, whatever it is asked. Synchronous and quick: it is called for every shard that is released.
pub trait Forecaster: Send + Sync {
    /// What this shard will need. Never fails: who knows nothing forecasts what was declared.
    fn forecast(&self, features: &Features, declared: &Declared) -> Forecast;
}

/// Forecasts if it knows enough. A [`crate::FallbackForecaster`] asks several, the best first.
pub trait Expert: Send + Sync {
    /// What this shard will need, or `None` if somebody else should be asked.
    fn consider(&self, features: &Features, declared: &Declared) -> Option<Forecast>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_resources::{CpuMillis, ResourceVector};
    use proptest::prelude::*;

    fn quantile(probability: f64, value: f64) -> NeedQuantile {
        NeedQuantile {
            probability,
            cpu_millis: value,
            memory_bytes: value,
            io_bytes_per_second: value,
            duration: Duration::from_secs(1),
        }
    }

    fn forecast(memory: Bytes, declared: &Declared) -> Forecast {
        Forecast::new(
            Source::Profile,
            String::new(),
            Need::default(),
            0.9,
            Reservation::new(ResourceVector::new(CpuMillis(100), memory), Duration::from_secs(1)),
            &[],
            declared,
        )
    }

    #[test]
    fn crossing_and_nonsensical_quantiles_are_mended() {
        let need = Need::new(vec![quantile(0.99, f64::NAN), quantile(0.5, 7.0), quantile(0.9, 3.0)]);
        for of in [
            |q: &NeedQuantile| q.cpu_millis,
            |q: &NeedQuantile| q.memory_bytes,
            |q: &NeedQuantile| q.io_bytes_per_second,
        ] {
            assert_eq!(need.quantiles.iter().map(of).collect::<Vec<f64>>(), [7.0, 7.0, 7.0]);
        }
        assert!(need.quantiles.is_sorted_by(|a, b| a.probability < b.probability));
    }

    #[test]
    fn memory_grows_past_200_mib_within_three_kills_at_64() {
        let declared = Declared::default();
        let forecast = forecast(Bytes::mib(64), &declared);
        let mut limit = Bytes::mib(64);
        for kills in 1..=3 {
            let next = forecast.reservation_after(kills, limit, &declared).unwrap().vector.memory;
            assert!(next > limit);
            limit = next;
        }
        assert!(limit >= Bytes::mib(200));
    }

    #[test]
    fn a_lease_that_was_grown_beyond_its_rung_still_gets_more() {
        let declared = Declared::default();
        let forecast = forecast(Bytes::mib(64), &declared);
        let next = forecast.reservation_after(1, Bytes::mib(150), &declared).unwrap().vector.memory;
        assert_eq!(next, Bytes::mib(256));
        let far = forecast.reservation_after(1, Bytes::gib(100), &declared).unwrap().vector.memory;
        assert_eq!(far, Bytes::gib(200), "beyond the ladder it doubles");
    }

    #[test]
    fn at_the_maximum_it_is_infeasible_even_if_the_maximum_was_lowered_since() {
        let mut declared =
            Declared { maximum: ResourceVector::new(CpuMillis::ZERO, Bytes::mib(256)), ..Default::default() };
        let forecast = forecast(Bytes::mib(64), &declared);
        assert_eq!(forecast.reservation_after(2, Bytes::mib(128), &declared).unwrap().vector.memory, Bytes::mib(256));
        assert_eq!(forecast.reservation_after(9, Bytes::mib(128), &declared).unwrap().vector.memory, Bytes::mib(256));
        assert_eq!(forecast.reservation_after(3, Bytes::mib(256), &declared), None);
        declared.maximum.memory = Bytes::mib(100);
        assert_eq!(forecast.reservation_after(1, Bytes::mib(64), &declared).unwrap().vector.memory, Bytes::mib(100));
        assert_eq!(forecast.reservation_after(1, Bytes::mib(100), &declared), None);
    }

    #[test]
    fn without_kills_it_is_the_first_reservation() {
        let declared = Declared::default();
        let forecast = forecast(Bytes::mib(64), &declared);
        assert_eq!(forecast.reservation_after(0, Bytes::mib(64), &declared), Some(forecast.reservation.clone()));
    }

    proptest! {
        #[test]
        fn each_kill_gives_more_memory_or_ends_at_the_maximum(
            first in 0u64..1 << 40, maximum in 0u64..1 << 42, growth in 0u64..1 << 36,
        ) {
            let declared =
                Declared { maximum: ResourceVector::new(CpuMillis::ZERO, Bytes(maximum)), ..Declared::default() };
            let forecast = forecast(Bytes(first), &declared);
            let mut limit = forecast.reservation.vector.memory;
            for kills in 1..100 {
                limit = limit.saturating_add(Bytes(growth));
                let Some(next) = forecast.reservation_after(kills, limit, &declared) else {
                    let most = if maximum > 0 { maximum } else { u64::MAX };
                    prop_assert!(limit.0 >= most);
                    return Ok(());
                };
                prop_assert!(next.vector.memory > limit);
                prop_assert!(maximum == 0 || next.vector.memory.0 <= maximum);
                limit = next.vector.memory;
            }
            prop_assert!(false, "a hundred kills and no end");
        }
    }
}
