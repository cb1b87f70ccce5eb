//! The same load on the same worker, with and without adjustment: fewer kills for memory, less waste, no longer.

use std::collections::VecDeque;
use std::time::Duration;

use forecastle_admission::{
    Acquisition, AdjustmentPolicy, Change, Claim, Governor, LeaseId, Need, Pool, Shares, Subject, Time, UsageSample,
};
use forecastle_resources::{Bytes, CpuMillis, Priority, ResourceVector};

const TICK: Duration = Duration::from_millis(10);

/// A shard: it rises to its peak in the first part of its time, and stays there.
#[derive(Debug, Clone)]
struct Shard {
    reserved: Bytes,
    peak: Bytes,
    lasts: f64,
    rises_for: f64,
}

impl Shard {
    fn used(&self, at: f64) -> Bytes {
        self.peak.scale((at / self.rises_for).min(1.0))
    }
}

struct Run {
    lease: LeaseId,
    shard: Shard,
    started: f64,
    due: f64,
}

#[derive(Debug, Default)]
struct Outcome {
    kills: u32,
    stops: u32,
    changes: u32,
    /// Held and not used, in GiB·s; all of it for runs that were killed.
    wasted: f64,
    makespan: f64,
}

/// Reservations as forecasts give them: most are some way above the peak, some far above, some below. A fixed sequence
/// (a linear congruential generator), so that the counts are the same every time.
fn shards(count: usize, seed: u64) -> VecDeque<Shard> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..count)
        .map(|_| {
            let peak = 40.0 * 16f64.powf(next());
            let factor = match next() {
                kind if kind < 0.25 => 0.4 + 0.5 * next(),
                kind if kind < 0.75 => 1.1 + 0.3 * next(),
                _ => 2.0 + 4.0 * next(),
            };
            let lasts = 10.0 + 40.0 * next();
            Shard {
                reserved: Bytes::from_f64(peak * factor * f64::from(1 << 20)).min(Bytes::mib(2048)),
                peak: Bytes::from_f64(peak * f64::from(1 << 20)),
                lasts,
                rises_for: lasts * (0.1 + 0.3 * next()),
            }
        })
        .collect()
}

/// Runs them all on a worker of 4 GiB, first come, first served. A kill costs the whole attempt, and the next one
/// reserves twice as much.
fn simulate(mut waiting: VecDeque<Shard>, adjusting: bool) -> Outcome {
    let capacity = ResourceVector::new(CpuMillis::cores(64), Bytes::gib(4));
    let mut pool = Pool::new(capacity, Shares::none(), Pool::LENDING_HORIZON).unwrap();
    let mut governor = Governor::new(AdjustmentPolicy::default());
    let (mut running, mut outcome, mut tick) = (Vec::<Run>::new(), Outcome::default(), 0u32);
    while !(waiting.is_empty() && running.is_empty()) {
        tick += 1;
        let now = TICK.as_secs_f64() * f64::from(tick);
        let time = Time(TICK * tick);
        while let Some(shard) = waiting.pop_front() {
            let vector = ResourceVector::new(CpuMillis(100), shard.reserved);
            let predicted_end_after = Duration::from_secs_f64(shard.lasts);
            let claim = Claim { priority: Priority::Standard, vector: vector.clone(), predicted_end_after };
            let Acquisition::Acquired(lease) = pool.try_acquire(&claim, time) else {
                waiting.push_front(shard);
                break;
            };
            let subject = Subject {
                priority: Priority::Standard,
                reserved: vector,
                minimum: ResourceVector::ZERO,
                maximum: ResourceVector::ZERO,
                memory_is_limited: true,
                cpu_is_limited: false,
                need: Need { typical_memory: None, duration: Duration::from_secs_f64(shard.lasts) },
            };
            governor.begin(lease, subject, time);
            running.push(Run { lease, shard, started: now, due: now });
        }
        let somebody_waits = !waiting.is_empty();
        running.retain_mut(|run| {
            let held = pool.lease(run.lease).unwrap().vector.memory;
            let age = now - run.started;
            let used = run.shard.used(age);
            let gib = |bytes: Bytes| bytes.get() as f64 / f64::from(1 << 30);
            let killed = used > held;
            if killed || age >= run.shard.lasts {
                governor.end(run.lease);
                pool.release(run.lease).unwrap();
                if killed {
                    outcome.kills += 1;
                    // All that it used was for nothing.
                    outcome.wasted += gib(run.shard.peak) * age * age / run.shard.rises_for / 2.0;
                    let reserved = held.max(run.shard.reserved).scale(2.0).min(Bytes::gib(4));
                    waiting.push_front(Shard { reserved, ..run.shard.clone() });
                }
                return false;
            }
            outcome.wasted += gib(held.saturating_sub(used)) * TICK.as_secs_f64();
            if adjusting && now >= run.due {
                let sample = UsageSample { memory: Some(used), ..UsageSample::default() };
                let advice = governor.observe(run.lease, &sample, &pool, somebody_waits, time);
                run.due = now + advice.next.as_secs_f64();
                match advice.change {
                    Change::Grow(to) | Change::Shrink(to) => {
                        outcome.changes += 1;
                        pool.resize(run.lease, &to).unwrap();
                    }
                    Change::Stop => outcome.stops += 1,
                    _ => {}
                }
            }
            true
        });
        pool.keep_for_growth(if adjusting { governor.needed_for_growth() } else { Bytes::ZERO });
        outcome.makespan = now;
    }
    outcome
}

#[test]
fn the_same_load_has_fewer_kills_and_less_waste_and_takes_no_longer() {
    for seed in [1, 20, 300] {
        let load = shards(150, seed);
        let without = simulate(load.clone(), false);
        let with = simulate(load, true);
        assert!(without.kills >= 30, "the load is made so that forecasts are too low for a quarter: {without:?}");
        assert!(with.kills * 4 <= without.kills, "a quarter of the kills at most: {with:?} against {without:?}");
        assert!(with.wasted * 1.5 <= without.wasted, "{with:?} against {without:?}");
        assert!(with.makespan <= without.makespan, "{with:?} against {without:?}");
        assert_eq!(with.stops, 0, "there is no batch work");
    }
}
