//! Leases that follow use: what must hold whatever runs do.

use std::time::Duration;

use forecastle_admission::adjustment::Reason;
use forecastle_admission::{
    Acquisition, AdjustmentPolicy, Change, Claim, Governor, LeaseId, Need, Pool, Shares, Subject, Time, UsageSample,
};
use forecastle_resources::{Bytes, CpuMillis, Priority, ResourceVector};
use proptest::prelude::*;

fn seconds(seconds: f64) -> Time {
    Time(Duration::from_secs_f64(seconds))
}

fn pool(memory: Bytes) -> Pool {
    Pool::new(ResourceVector::new(CpuMillis::cores(16), memory), Shares::none(), Pool::LENDING_HORIZON).unwrap()
}

fn memory(bytes: Bytes) -> UsageSample {
    UsageSample { memory: Some(bytes), ..UsageSample::default() }
}

/// A pool and its governor.
struct Worker {
    pool: Pool,
    governor: Governor,
}

impl Worker {
    fn new(capacity: Bytes) -> Self {
        Self { pool: pool(capacity), governor: Governor::new(AdjustmentPolicy::default()) }
    }

    fn start(&mut self, priority: Priority, reserved: Bytes, maximum: Bytes, now: Time) -> LeaseId {
        let vector = ResourceVector::new(CpuMillis(1000), reserved);
        let claim = Claim { priority, vector: vector.clone(), predicted_end_after: Duration::from_secs(10) };
        let Acquisition::Acquired(lease) = self.pool.try_acquire(&claim, now) else {
            panic!("{reserved} does not fit")
        };
        let subject = Subject {
            priority,
            reserved: vector,
            minimum: ResourceVector::new(CpuMillis(10), Bytes::mib(4)),
            maximum: ResourceVector::new(CpuMillis::ZERO, maximum),
            memory_is_limited: true,
            cpu_is_limited: false,
            need: Need { typical_memory: None, duration: Duration::from_secs(10) },
        };
        self.governor.begin(lease, subject, now);
        lease
    }

    /// Takes a sample and does what is advised.
    fn observe(&mut self, lease: LeaseId, used: Bytes, waiting: bool, now: Time) -> (Change, Reason, Duration) {
        let advice = self.governor.observe(lease, &memory(used), &self.pool, waiting, now);
        if let Change::Grow(to) | Change::Shrink(to) = &advice.change {
            self.pool.resize(lease, to).unwrap();
        }
        self.pool.keep_for_growth(self.governor.needed_for_growth());
        (advice.change, advice.reason, advice.next)
    }

    fn held(&self, lease: LeaseId) -> Bytes {
        self.pool.lease(lease).unwrap().vector.memory
    }

    fn end(&mut self, lease: LeaseId) {
        self.governor.end(lease);
        self.pool.release(lease).unwrap();
        self.pool.keep_for_growth(self.governor.needed_for_growth());
    }
}

proptest! {
    /// The guarantee of the policy: ramps up to the stated rate never meet their limit, although a growth takes effect
    /// only the shortest interval after it was decided.
    #[test]
    fn a_ramp_grows_before_its_limit(
        reserved in 8u64..1024, part in 0.0f64..0.85, rate in 0.01f64..1.0, steady_for in 0.0f64..20.0,
    ) {
        let policy = AdjustmentPolicy::default();
        let mut worker = Worker::new(Bytes::gib(64));
        let lease = worker.start(Priority::Standard, Bytes::mib(reserved), Bytes::ZERO, Time::START);
        let reserved = Bytes::mib(reserved);
        // A lease that has shrunk is prepared for less.
        let prepared = reserved.min(reserved.scale(part * 1.1).max(Bytes::mib(4)));
        let fastest = (policy.fastest_growth.get() as f64)
            .min(prepared.get() as f64 / 16.0 / policy.shortest_interval.as_secs_f64());
        let from = reserved.scale(part).get() as f64;
        let used = |at: f64| Bytes::from_f64(from + (at - steady_for).max(0.0) * rate * fastest);
        let mut at = 0.005;
        // The limit in force, which follows the lease late.
        let mut limit = reserved;
        while used(at) < Bytes::gib(32) && at < steady_for + 60.0 {
            prop_assert!(used(at) < limit, "met {limit} at {at} s");
            let (change, _, next) = worker.observe(lease, used(at), false, seconds(at));
            let late = at + policy.shortest_interval.as_secs_f64();
            if matches!(change, Change::Grow(_)) {
                prop_assert!(used(late) < limit, "met {limit} while it grew at {at} s");
            }
            limit = worker.held(lease);
            at += next.as_secs_f64();
        }
    }

    /// Whatever runs do: capacity, bounds, and never less than what was seen.
    #[test]
    fn leases_stay_within_capacity_and_bounds_and_above_use(
        runs in proptest::collection::vec(
            (0usize..3, 16u64..400, 0u64..800, proptest::collection::vec((0u64..600, 1u64..40), 1..8)), 1..8),
        waiting in proptest::collection::vec(any::<bool>(), 8),
    ) {
        let capacity = Bytes::mib(2048);
        let mut worker = Worker::new(capacity);
        let margin = worker.governor.policy().margin;
        let mut live = Vec::new();
        for (priority, reserved, maximum, curve) in runs {
            let reserved = Bytes::mib(reserved);
            if worker.pool.free().memory < reserved {
                continue;
            }
            let lease = worker.start(Priority::ALL[priority], reserved, Bytes::mib(maximum), Time::START);
            live.push((lease, reserved, Bytes::mib(maximum), curve, Bytes::ZERO, true));
        }
        for tick in 1..600u64 {
            let now = seconds(tick as f64 / 10.0);
            let waiting = waiting[(tick / 75) as usize];
            for (lease, reserved, maximum, curve, most, running) in &mut live {
                if !*running {
                    continue;
                }
                let wanted = Bytes::mib(curve[(tick / 75) as usize % curve.len()].0);
                // What is beyond the limit is never used: the kernel sees to it.
                let used = wanted.min(worker.held(*lease));
                *most = (*most).max(used);
                let (change, reason, _) = worker.observe(*lease, used, waiting, now);
                let held = worker.held(*lease);
                match change {
                    Change::Grow(_) => prop_assert!(*maximum == Bytes::ZERO || held <= (*maximum).max(*reserved)),
                    Change::Shrink(_) if reason == Reason::NotNeeded => {
                        prop_assert!(held >= most.scale(1.0 + margin) && held >= Bytes::mib(4));
                    }
                    Change::Shrink(_) => prop_assert!(held >= *most && held >= *reserved),
                    Change::Stop => {
                        worker.end(*lease);
                        *running = false;
                    }
                    _ => {}
                }
                prop_assert!(worker.pool.held().memory <= capacity);
            }
        }
    }

    /// A load that alternates has no lasting effect: once both its ends were seen, nothing changes any more.
    #[test]
    fn nothing_oscillates(low in 1u64..200, high in 200u64..900, period in 1u64..200, reserved in 64u64..1500) {
        let mut worker = Worker::new(Bytes::gib(8));
        let lease = worker.start(Priority::Standard, Bytes::mib(reserved), Bytes::ZERO, Time::START);
        let mut late = Vec::new();
        for tick in 1..9000u64 {
            let used = Bytes::mib(if tick / period % 2 == 0 { low } else { high }).min(worker.held(lease));
            let (change, reason, _) = worker.observe(lease, used, false, seconds(tick as f64 / 10.0));
            // Ten minutes, of which the first three and a half are for learning.
            if tick > 2100 && change != Change::Keep {
                late.push((tick, change, reason));
            }
        }
        prop_assert!(late.is_empty(), "{late:?}");
    }
}

#[test]
fn what_is_not_needed_is_given_back_once_and_after_a_while() {
    let mut worker = Worker::new(Bytes::gib(4));
    let lease = worker.start(Priority::Standard, Bytes::gib(1), Bytes::ZERO, Time::START);
    let mut changes = Vec::new();
    for tick in 0..600 {
        let now = seconds(f64::from(tick) / 10.0);
        let (change, reason, _) = worker.observe(lease, Bytes::mib(100), true, now);
        if change != Change::Keep {
            changes.push((tick, reason));
        }
    }
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert!(changes[0].0 >= 50 && changes[0].1 == Reason::NotNeeded, "{changes:?}");
    assert_eq!(worker.held(lease), Bytes::mib(121), "a tenth and twice the reserve above what was seen");
}

#[test]
fn what_is_typical_is_kept_until_the_typical_end() {
    let mut worker = Worker::new(Bytes::gib(4));
    let lease = worker.start(Priority::Standard, Bytes::gib(1), Bytes::ZERO, Time::START);
    let typical = Need { typical_memory: Some(Bytes::mib(600)), duration: Duration::from_secs(30) };
    let reserved = worker.pool.lease(lease).unwrap().vector.clone();
    let subject = Subject {
        priority: Priority::Standard,
        reserved,
        minimum: ResourceVector::ZERO,
        maximum: ResourceVector::ZERO,
        memory_is_limited: true,
        cpu_is_limited: false,
        need: typical,
    };
    worker.governor.begin(lease, subject, Time::START);
    for tick in 0..290 {
        worker.observe(lease, Bytes::mib(100), true, seconds(f64::from(tick) / 10.0));
    }
    assert!(worker.held(lease) > Bytes::mib(600), "{}", worker.held(lease));
    for tick in 290..700 {
        worker.observe(lease, Bytes::mib(100), true, seconds(f64::from(tick) / 10.0));
    }
    assert_eq!(worker.held(lease), Bytes::mib(121));
}

/// A worker of 1 GiB that is full, and a run that rises to its limit of 256 MiB; answers what was advised to each.
fn short(priority: Priority, others: &[Priority]) -> (Vec<Change>, Vec<Vec<Change>>, Worker) {
    let mut worker = Worker::new(Bytes::mib(256 * (others.len() as u64 + 1)));
    let rising = worker.start(priority, Bytes::mib(256), Bytes::ZERO, seconds(1.0));
    let others: Vec<_> = others
        .iter()
        .enumerate()
        .map(|(number, priority)| worker.start(*priority, Bytes::mib(256), Bytes::ZERO, seconds(1.1 + number as f64)))
        .collect();
    let (mut own, mut theirs) = (Vec::new(), vec![Vec::new(); others.len()]);
    for tick in 0..100u64 {
        let now = seconds(10.0 + tick as f64 / 50.0);
        own.push(worker.observe(rising, Bytes::mib(200 + tick / 2), true, now).0);
        for (number, lease) in others.iter().enumerate() {
            theirs[number].push(worker.observe(*lease, Bytes::mib(128), true, now).0);
        }
    }
    (own, theirs, worker)
}

fn is_stopped(changes: &[Change]) -> bool {
    changes.contains(&Change::Stop)
}

#[test]
fn the_youngest_batch_run_makes_way_and_only_one() {
    let (own, theirs, mut worker) = short(Priority::Standard, &[Priority::Batch, Priority::Urgent, Priority::Batch]);
    assert!(own.iter().all(|change| *change == Change::Keep), "there is nothing to be had yet");
    assert_eq!(theirs.iter().map(|changes| is_stopped(changes)).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(theirs[2].iter().filter(|change| **change == Change::Stop).count(), 1, "it is told once");
    // What it gives back is for the run that is short, and not for a claim that comes first.
    let rising = worker.pool.leases().next().unwrap().id;
    let victim = worker.pool.leases().last().unwrap().id;
    worker.end(victim);
    let vector = ResourceVector::new(CpuMillis(1), Bytes::mib(256));
    let claim = Claim { priority: Priority::Urgent, vector, predicted_end_after: Duration::ZERO };
    assert!(matches!(worker.pool.try_acquire(&claim, seconds(12.0)), Acquisition::BlockedOn(_)));
    let (change, reason, _) = worker.observe(rising, Bytes::mib(251), true, seconds(12.02));
    assert!(matches!(change, Change::Grow(_)) && reason == Reason::MemoryNearLimit);
    let left = Claim { vector: worker.pool.free(), ..claim };
    assert!(
        matches!(worker.pool.try_acquire(&left, seconds(12.0)), Acquisition::Acquired(_)),
        "the rest is for claims"
    );
}

#[test]
fn nobody_but_batch_makes_way() {
    let (_, theirs, _) = short(Priority::Urgent, &[Priority::Standard, Priority::Urgent]);
    assert!(theirs.iter().flatten().all(|change| *change == Change::Keep), "{theirs:?}");
}

#[test]
fn a_batch_run_that_is_short_is_throttled_and_only_a_younger_one_makes_way() {
    let (own, theirs, mut worker) = short(Priority::Batch, &[Priority::Standard]);
    assert!(own.contains(&Change::Throttle(CpuMillis(100))) && !is_stopped(&own), "{own:?}");
    assert!(theirs.iter().flatten().all(|change| *change == Change::Keep));
    // When something is free it gets it, and is throttled no longer.
    let (rising, other) = (worker.pool.leases().next().unwrap().id, worker.pool.leases().last().unwrap().id);
    worker.end(other);
    let mut after = Vec::new();
    for tick in 0..10 {
        after.push(worker.observe(rising, Bytes::mib(250), false, seconds(12.0 + f64::from(tick) / 50.0)).0);
    }
    assert!(matches!(after[0], Change::Grow(_)) && after.contains(&Change::Unthrottle), "{after:?}");

    let (_, theirs, _) = short(Priority::Batch, &[Priority::Batch]);
    assert!(is_stopped(&theirs[0]), "it is the younger one");
}

#[test]
fn a_run_that_rests_close_to_its_limit_takes_nothing_from_those_who_wait() {
    let mut worker = Worker::new(Bytes::mib(512));
    let lease = worker.start(Priority::Standard, Bytes::mib(256), Bytes::ZERO, Time::START);
    for tick in 0..50 {
        let (change, _, _) = worker.observe(lease, Bytes::mib(253), true, seconds(f64::from(tick)));
        assert_eq!(change, Change::Keep);
    }
    let (change, _, _) = worker.observe(lease, Bytes::mib(253), false, seconds(51.0));
    assert!(matches!(change, Change::Grow(_)), "nobody else has a use for it");
    let (change, reason, _) = worker.observe(lease, Bytes::mib(253), true, seconds(52.0));
    assert!(matches!(change, Change::Shrink(_)) && reason == Reason::Wanted);
    assert_eq!(worker.held(lease), Bytes::mib(256));
}

#[test]
fn a_machine_that_is_short_of_memory_stops_the_youngest_batch_run_and_then_the_next() {
    let mut worker = Worker::new(Bytes::gib(2));
    let leases: Vec<_> = [Priority::Batch, Priority::Batch, Priority::Standard]
        .into_iter()
        .enumerate()
        .map(|(number, priority)| worker.start(priority, Bytes::mib(256), Bytes::ZERO, seconds(number as f64)))
        .collect();
    let stopped = |worker: &mut Worker, at: f64| -> Vec<bool> {
        leases
            .iter()
            .map(|lease| {
                let (change, reason, _) = worker.observe(*lease, Bytes::mib(100), false, seconds(at));
                assert!(change != Change::Stop || reason == Reason::MachineShort);
                change == Change::Stop
            })
            .collect()
    };
    worker.governor.machine(Bytes::gib(1), seconds(4.0));
    assert_eq!(stopped(&mut worker, 4.0), [false; 3]);
    worker.governor.machine(Bytes::mib(50), seconds(5.0));
    assert_eq!(stopped(&mut worker, 5.0), [false, true, false]);
    worker.governor.machine(Bytes::mib(50), seconds(6.0));
    assert_eq!(stopped(&mut worker, 6.0), [false; 3], "the kernel gets time");
    worker.governor.machine(Bytes::mib(50), seconds(8.0));
    assert_eq!(stopped(&mut worker, 8.0), [true, false, false]);
    worker.governor.machine(Bytes::mib(50), seconds(20.0));
    assert_eq!(stopped(&mut worker, 20.0), [false; 3], "nobody else makes way");
    // And while it lasts, no lease grows.
    for tick in 0..20u64 {
        let (change, _, _) =
            worker.observe(leases[2], Bytes::mib(200 + tick * 2), false, seconds(21.0 + tick as f64 / 50.0));
        assert_eq!(change, Change::Keep);
    }
}

#[test]
fn cpu_that_is_not_used_is_given_back_and_taken_again_up_to_the_reservation() {
    let mut worker = Worker::new(Bytes::gib(1));
    let lease = worker.start(Priority::Standard, Bytes::mib(64), Bytes::ZERO, Time::START);
    let held = |worker: &Worker| worker.pool.lease(lease).unwrap().vector.cpu;
    let mut used = Duration::ZERO;
    let mut run = |worker: &mut Worker, from: u64, to: u64, share: f64| {
        for tick in from..to {
            used += Duration::from_millis(100).mul_f64(share);
            let sample = UsageSample { cpu: Some(used), ..UsageSample::default() };
            let advice = worker.governor.observe(lease, &sample, &worker.pool, false, seconds(tick as f64 / 10.0));
            if let Change::Grow(to) | Change::Shrink(to) = &advice.change {
                worker.pool.resize(lease, to).unwrap();
            }
        }
    };
    run(&mut worker, 0, 200, 0.2);
    assert!((250..=252).contains(&held(&worker).get()), "a quarter above 200m: {}", held(&worker));
    run(&mut worker, 200, 400, 1.9);
    assert_eq!(held(&worker), CpuMillis(1000), "others' idle CPU is its weight's affair");
}
