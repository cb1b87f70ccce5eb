//! Random vectors, shares, claims and pools: small numbers, so that they collide.

use std::time::Duration;

use forecastle_admission::{Acquisition, Claim, Offer, Pool, Shares, Time};
use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, Priority, Resource, ResourceVector};
use proptest::prelude::*;

pub(crate) const HORIZON: Duration = Duration::from_secs(30);

/// Amounts in the order of [`resources`].
pub(crate) type Amounts = [u64; 6];

pub(crate) fn resources() -> [Resource; 6] {
    [
        Resource::Cpu,
        Resource::Memory,
        Resource::Io,
        Resource::Scratch,
        Resource::Named("gpu".to_owned()),
        Resource::Named("licence".to_owned()),
    ]
}

pub(crate) fn vector(amounts: &Amounts) -> ResourceVector {
    ResourceVector::new(CpuMillis(amounts[0]), Bytes(amounts[1]))
        .with_io(BytesPerSecond(amounts[2]))
        .with_scratch(Bytes(amounts[3]))
        .with_named("gpu", amounts[4])
        .with_named("licence", amounts[5])
}

pub(crate) fn capacities() -> impl Strategy<Value = Amounts> {
    [4u64..16, 4u64..16, 0u64..8, 0u64..8, 0u64..4, 0u64..2]
}

pub(crate) fn amounts() -> impl Strategy<Value = Amounts> {
    (0u64..9, 0u64..9, 0u64..4, 0u64..4, 0u64..2, prop::bool::weighted(0.1))
        .prop_map(|(cpu, memory, io, scratch, gpu, licence)| [cpu, memory, io, scratch, gpu, u64::from(licence)])
}

pub(crate) fn priorities() -> impl Strategy<Value = Priority> {
    prop::sample::select(Priority::ALL.to_vec())
}

/// Seconds, around the lending horizon.
pub(crate) fn seconds() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..30, Just(30), Just(31), 30u64..200]
}

/// A capacity, and for each priority what is guaranteed to it and the most it may hold (0: not bounded).
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) capacity: Amounts,
    pub(crate) guaranteed: [Amounts; 3],
    pub(crate) maximum: [Amounts; 3],
    /// Memory that leases need to grow.
    pub(crate) kept: u64,
}

impl Setting {
    pub(crate) fn pool(&self) -> Pool {
        let shares = Priority::ALL.into_iter().enumerate().fold(Shares::none(), |shares, (place, priority)| {
            shares
                .with_guaranteed(priority, vector(&self.guaranteed[place]))
                .with_maximum(priority, vector(&self.maximum[place]))
        });
        Pool::new(vector(&self.capacity), shares, HORIZON).expect("the shares fit by construction")
    }
}

pub(crate) fn settings() -> impl Strategy<Value = Setting> {
    let bounded = prop_oneof![3 => Just(false), 1 => Just(true)];
    (
        capacities(),
        prop::array::uniform3(prop::array::uniform6(0u64..4)),
        [bounded.clone(), bounded.clone(), bounded],
        0u64..6,
        prop_oneof![Just(0), 0u64..8],
    )
        .prop_map(|(capacity, thirds, bounded, more, kept)| {
            // Each priority is guaranteed 0 to 3 ninths.
            let guaranteed = thirds.map(|of| std::array::from_fn(|r| capacity[r] * of[r] / 9));
            let maximum = std::array::from_fn(|p: usize| {
                let most = |r: usize| guaranteed[p][r].max(1) + more;
                if bounded[p] { std::array::from_fn(most) } else { Amounts::default() }
            });
            Setting { capacity, guaranteed, maximum, kept }
        })
}

pub(crate) fn claims() -> impl Strategy<Value = Claim> {
    (priorities(), amounts(), seconds()).prop_map(|(priority, amounts, seconds)| Claim {
        priority,
        vector: vector(&amounts),
        predicted_end_after: Duration::from_secs(seconds),
    })
}

/// An offer that was released and offered before second 200.
pub(crate) fn offers() -> impl Strategy<Value = Offer> {
    (claims(), 0u64..200, 0u64..200).prop_map(|(claim, one, other)| Offer {
        claim,
        released: Time::from_secs(one.min(other)),
        offered: Time::from_secs(one.max(other)),
    })
}

/// A pool at second 200, after these claims came at their seconds and what fitted was acquired. Leases of which the
/// flag says so ended as predicted, the others overrun.
pub(crate) fn filled(setting: &Setting, claims: &[(Claim, u64, bool)]) -> Pool {
    let mut pool = setting.pool();
    let mut claims = claims.to_vec();
    claims.sort_by_key(|(_, at, _)| *at);
    let mut punctual = Vec::new();
    for (claim, at, ends) in &claims {
        let now = Time::from_secs(*at);
        end_overdue(&mut pool, &punctual, now);
        if let Acquisition::Acquired(id) = pool.try_acquire(claim, now)
            && *ends
        {
            punctual.push(id);
        }
    }
    end_overdue(&mut pool, &punctual, AFTER);
    pool.keep_for_growth(Bytes(setting.kept));
    pool
}

/// The second up to which [`filled`] fills.
pub(crate) const AFTER: Time = Time::from_secs(200);

fn end_overdue(pool: &mut Pool, punctual: &[forecastle_admission::LeaseId], now: Time) {
    for id in punctual {
        if pool.lease(*id).is_some_and(|lease| lease.is_overdue(now)) {
            pool.release(*id).expect("it was held a moment ago");
        }
    }
}

pub(crate) fn histories() -> impl Strategy<Value = Vec<(Claim, u64, bool)>> {
    prop::collection::vec((claims(), 100u64..200, prop::bool::weighted(0.9)), 0..40)
}
