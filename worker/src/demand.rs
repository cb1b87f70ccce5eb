//! What the frontend expects of the fleet, as what is to be expected here.

use std::collections::BTreeMap;
use std::time::Duration;

use forecastle_admission::preallocation::Expectation;
use forecastle_protos::v1;
use forecastle_resources::ResourceVector;

use crate::execution::Expected;

/// How many horizons a forecast counts if no other follows it.
const COUNTS_FOR: u32 = 3;

/// The part of a fleet's demand that falls to a worker of this capacity: its part of the fleet's CPU, for load evens out
/// over what a fleet has. Also how long that counts.
pub(crate) fn expected_here(demand: &v1::Demand, capacity: &ResourceVector) -> (Vec<Expected>, Duration) {
    let vector = |given: &Option<v1::ResourceVector>| given.as_ref().map(ResourceVector::from).unwrap_or_default();
    let all = vector(&demand.capacity).cpu.get().max(capacity.cpu.get()).max(1);
    let part = capacity.cpu.get() as f64 / all as f64;
    // Several request types may run the same unit: what waits for one of them serves the others.
    let mut together: BTreeMap<&str, (f64, ResourceVector)> = BTreeMap::new();
    for unit in &demand.units {
        let (starts, reservation) = together.entry(&unit.unit).or_default();
        *starts += unit.starts * part;
        *reservation = reservation.max(&vector(&unit.reservation));
    }
    let units = together.into_iter().filter_map(|(unit, (starts, reservation))| {
        let at_once = usize::try_from(reservation.times_in(capacity)).unwrap_or(usize::MAX);
        let expectation = Expectation { starts, at_once };
        (at_once > 0).then(|| Expected { unit: unit.to_owned(), expectation, reservation })
    });
    (units.collect(), Duration::from_millis(demand.horizon_ms.into()).saturating_mul(COUNTS_FOR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_resources::{Bytes, CpuMillis};

    fn unit(name: &str, starts: f64, cpu: u64, memory: u64) -> v1::UnitDemand {
        let reservation = ResourceVector::new(CpuMillis(cpu), Bytes::mib(memory));
        v1::UnitDemand {
            unit: name.to_owned(),
            request_type: "t".to_owned(),
            starts,
            reservation: Some((&reservation).into()),
        }
    }

    #[test]
    fn a_worker_expects_its_part_and_never_more_at_once_than_fit() {
        let capacity = ResourceVector::new(CpuMillis::cores(4), Bytes::gib(1));
        let fleet = ResourceVector::new(CpuMillis::cores(16), Bytes::gib(64));
        let units =
            vec![unit("a", 8.0, 500, 64), unit("b", 8.0, 100, 512), unit("c", 8.0, 5000, 1), unit("d", 8.0, 0, 0)];
        let demand =
            v1::Demand { fleet: "default".to_owned(), horizon_ms: 10_000, capacity: Some((&fleet).into()), units };
        let (expected, for_so_long) = expected_here(&demand, &capacity);
        assert_eq!(for_so_long, Duration::from_secs(30));
        let expected: Vec<_> = expected.iter().map(|e| (e.expectation.starts, e.expectation.at_once)).collect();
        assert_eq!(expected, [(2.0, 8), (2.0, 2), (2.0, usize::MAX)]);
    }

    #[test]
    fn what_several_types_expect_of_one_unit_adds_up_at_the_size_of_the_largest() {
        let capacity = ResourceVector::new(CpuMillis::cores(4), Bytes::gib(1));
        let units = vec![unit("u", 8.0, 500, 64), unit("other", 1.0, 100, 1), unit("u", 4.0, 250, 128)];
        let (expected, _) = expected_here(&v1::Demand { units, ..v1::Demand::default() }, &capacity);
        let of_u = expected.iter().find(|expected| expected.unit == "u").unwrap();
        assert_eq!(of_u.expectation, Expectation { starts: 12.0, at_once: 8 });
        assert_eq!((expected.len(), &of_u.reservation), (2, &ResourceVector::new(CpuMillis(500), Bytes::mib(128))));
    }

    #[test]
    fn a_fleet_that_is_not_told_is_this_worker() {
        let capacity = ResourceVector::new(CpuMillis::cores(4), Bytes::gib(1));
        let demand = v1::Demand { units: vec![unit("u", 8.0, 500, 64)], ..v1::Demand::default() };
        assert_eq!(expected_here(&demand, &capacity).0[0].expectation.starts.to_bits(), 8.0f64.to_bits());
    }
}
