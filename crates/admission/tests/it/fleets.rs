//! Whole fleets in the simulation: what the protocol of claims promises, over the code that the worker runs.

use std::time::Duration;

use forecastle_admission::simulation::{Fleet, Job, Report, load, pack, report, trace};
use forecastle_admission::{ClaimPolicy, DeskOptions, Pool, Shares, Time};
use forecastle_resources::{Bytes, CpuMillis, Priority, ResourceVector};
use proptest::prelude::*;

/// Longer than any load here takes.
const UNTIL: Duration = Duration::from_hours(24);

fn capacity() -> ResourceVector {
    ResourceVector::new(CpuMillis::cores(8), Bytes::gib(16))
}

fn of_all(workers: usize) -> ResourceVector {
    (0..workers).fold(ResourceVector::ZERO, |sum, _| sum.saturating_add(&capacity()))
}

/// What holds of every run that was not cut short.
fn check(report: &Report, jobs: &[Job]) {
    assert_eq!(report.starts.iter().filter(|start| start.is_none()).count(), 0, "every job started");
    let hold = DeskOptions::default().hold;
    assert!(report.longest_in_hand <= hold, "{:?} in hand", report.longest_in_hand);
    let claims = jobs.len() as u64 + report.preempted;
    assert_eq!(report.operations.claims, claims, "each attempt was claimed once");
}

#[test]
fn a_fleet_uses_nine_tenths_of_what_a_clairvoyant_best_fit_packer_does() {
    for largest in [0.25, 0.5, 1.0] {
        for workers in [4, 16] {
            let (mut fleets, mut packers) = (0.0, 0.0);
            for seed in 1..=3 {
                let jobs = load::mixed(workers * 100, &capacity(), largest, seed);
                let fleet = Fleet::new(workers, capacity()).run(&jobs, UNTIL);
                check(&fleet, &jobs);
                let packer = pack(workers, &capacity(), &jobs);
                // As long as there is plenty to choose from; at the end it is luck who has the last long job.
                let window = packer.makespan.mul_f64(0.6);
                let scarce = report::scarce(&jobs, &of_all(workers));
                let used = |report: &Report| report.utilisation(&jobs, &of_all(workers), &scarce, window);
                fleets += used(&fleet);
                packers += used(&packer);
            }
            assert!(fleets >= 0.9 * packers, "{workers} workers, jobs up to {largest}: {:.3}", fleets / packers);
        }
    }
}

/// Recorded from `make demo`: 268 shards of an archive of 43,000 files, sized by what was declared (the first half, ready
/// at once) and then by what had been learnt (20 s later). Memory and CPU are what was reserved, durations what was
/// predicted and what it took.
const ARCHIVE: &str = include_str!("../traces/archive.csv");

#[test]
fn a_recorded_load_is_packed_as_well_as_random_ones() {
    // Of two cores and little memory, so that both matter.
    let capacity = ResourceVector::new(CpuMillis::cores(2), Bytes::gib(1));
    let jobs = trace::parse(ARCHIVE, &capacity).unwrap();
    assert_eq!(jobs.len(), 268);
    for workers in [1, 2, 4, 8] {
        let fleet = Fleet::new(workers, capacity.clone()).run(&jobs, UNTIL);
        check(&fleet, &jobs);
        let packer = pack(workers, &capacity, &jobs);
        let all = (0..workers).fold(ResourceVector::ZERO, |sum, _| sum.saturating_add(&capacity));
        let scarce = report::scarce(&jobs, &all);
        let window = packer.makespan.mul_f64(0.6);
        let used = |report: &Report| report.utilisation(&jobs, &all, &scarce, window);
        let part = used(&fleet) / used(&packer);
        assert!(part >= 0.9, "{workers} workers: {part:.3}");
    }
}

#[test]
fn operations_for_each_claim_do_not_depend_on_the_size_of_the_fleet() {
    let per_claim: Vec<f64> = [10, 100, 1000]
        .into_iter()
        .map(|workers| {
            let jobs = load::mixed(workers * 20, &capacity(), 0.5, 1);
            let report = Fleet::new(workers, capacity()).run(&jobs, UNTIL);
            check(&report, &jobs);
            report.operations.per_claim()
        })
        .collect();
    let (least, most) =
        (per_claim.iter().copied().fold(f64::MAX, f64::min), per_claim.iter().copied().fold(0.0, f64::max));
    assert!(most <= 1.25 * least && most <= 30.0, "{per_claim:?}");
}

#[test]
fn jobs_that_nothing_stands_in_the_way_of_need_three_operations() {
    let job = |number: u64| Job {
        released: Time(Duration::from_millis(100 * number)),
        priority: Priority::Standard,
        vector: ResourceVector::new(CpuMillis(500), Bytes::gib(1)),
        predicted: Duration::from_secs(2),
        lasts: Duration::from_secs(1),
        in_process: false,
    };
    let jobs: Vec<Job> = (0..10_000).map(job).collect();
    let report = Fleet::new(10, capacity()).run(&jobs, UNTIL);
    check(&report, &jobs);
    assert_eq!((report.operations.returns, report.operations.closed), (0, 0));
    assert!(report.operations.per_claim() < 3.02, "{:?}", report.operations);
    assert!(report.longest_wait(&jobs, |_| true).unwrap() <= Duration::from_millis(5));
}

/// What waits at least, since that much work was released before: the time it takes all workers together.
fn work_ahead(jobs: &[Job], of: usize, workers: usize) -> Duration {
    let before = jobs.iter().filter(|job| job.released < jobs[of].released);
    let seconds: f64 = before.map(|job| job.vector.dominant_share(&capacity()) * job.lasts.as_secs_f64()).sum();
    Duration::from_secs_f64(seconds / workers as f64).saturating_sub(jobs[of].released.0)
}

/// The bound: behind the work that was released before it, no job waits longer than backfill may pass it, plus the
/// longest run, plus the longest pause of a queue. Also if predictions are always wrong.
#[test]
fn a_job_that_needs_a_whole_worker_does_not_starve_behind_small_ones() {
    for workers in [1, 4, 16, 64] {
        for overrun in [1.0, 3.0] {
            let (jobs, large) = load::one_large_among_small(workers, &capacity(), 600, overrun, 1);
            let report = Fleet::new(workers, capacity()).run(&jobs, UNTIL);
            check(&report, &jobs);
            let waited = report.waited(&jobs, large).unwrap();
            let options = DeskOptions::default();
            let longest = jobs.iter().map(|job| job.lasts).max().unwrap();
            let bound = ClaimPolicy::default().backfill_until + longest + options.longest_pause;
            let ahead = work_ahead(&jobs, large, workers);
            assert!(waited <= ahead + bound, "{workers} workers, overrun {overrun}: {waited:?} behind {ahead:?}");
        }
    }
}

#[test]
fn an_idle_worker_gets_what_busy_ones_cannot_claim_within_the_hold() {
    for workers in [2, 10, 100] {
        let job = |released: f64, of: u64, lasts: u64| Job {
            released: Time(Duration::from_secs_f64(released)),
            priority: Priority::Standard,
            vector: ResourceVector::new(CpuMillis(1000 * of), Bytes::gib(2 * of)),
            predicted: Duration::from_secs(lasts),
            lasts: Duration::from_secs(lasts),
            in_process: false,
        };
        // All but one are busy for an hour, after that one job at a time.
        let mut jobs: Vec<Job> = (1..workers).map(|_| job(0.0, 8, 3600)).collect();
        jobs.extend((0..100).map(|number| job(10.0 + 20.0 * f64::from(number), 4, 5)));
        let report = Fleet::new(workers, capacity()).run(&jobs, UNTIL);
        check(&report, &jobs);
        let waited = report.longest_wait(&jobs, |_| true).unwrap();
        assert!(waited <= DeskOptions::default().hold, "{workers} workers: {waited:?}");
    }
}

#[test]
fn what_is_guaranteed_is_there_within_the_lending_horizon_whatever_overruns() {
    let half = ResourceVector::new(CpuMillis::cores(4), Bytes::gib(8));
    let job = |released: u64, priority, predicted: u64, lasts: u64| Job {
        released: Time::from_secs(released),
        priority,
        vector: ResourceVector::new(CpuMillis::cores(2), Bytes::gib(4)),
        predicted: Duration::from_secs(predicted),
        lasts: Duration::from_secs(lasts),
        in_process: false,
    };
    // Batch work that is said to be short and is not.
    let mut jobs: Vec<Job> = (0..60).map(|_| job(0, Priority::Batch, 20, 200)).collect();
    jobs.extend((0..8).map(|number| job(100 + number, Priority::Urgent, 60, 60)));
    let shares = Shares::none().with_guaranteed(Priority::Urgent, half);
    let fleet = Fleet { shares, ..Fleet::new(4, capacity()) };
    let report = fleet.run(&jobs, UNTIL);
    assert!(report.preempted >= 4, "{report:?}");
    let waited = report.longest_wait(&jobs, |job| job.priority == Priority::Urgent).unwrap();
    assert!(waited <= Pool::LENDING_HORIZON + DeskOptions::default().hold, "{waited:?}");
    check(&report, &jobs);
}

/// Shards of a few milliseconds, some of which last for seconds all the same.
fn tiny(in_process: bool) -> Vec<Job> {
    let mut numbers = load::Numbers::new(5);
    let job = |number: u32| Job {
        released: Time::START,
        priority: Priority::Standard,
        vector: ResourceVector::new(CpuMillis(100), Bytes::mib(16)),
        predicted: Duration::from_millis(20),
        lasts: if number.is_multiple_of(200) {
            Duration::from_secs(3)
        } else {
            Duration::from_secs_f64(numbers.log_uniform(0.001, 0.02))
        },
        in_process,
    };
    (0..20_000).map(job).collect()
}

#[test]
fn tiny_shards_pass_through_deep_windows_and_long_ones_among_them_hide_nothing() {
    let (deep, single) = (tiny(true), tiny(false));
    let fleet = Fleet::new(10, capacity());
    let (deep_report, single_report) = (fleet.run(&deep, UNTIL), fleet.run(&single, UNTIL));
    check(&deep_report, &deep);
    let (makespan, claimed_first) = (deep_report.makespan, single_report.makespan);
    assert!(makespan.mul_f64(1.5) < claimed_first, "{makespan:?} is not much less than {claimed_first:?}");
    assert!(deep_report.operations.closed > 0, "no long one closed its window");
    assert!(deep_report.operations.per_claim() < 4.0, "{:?}", deep_report.operations);
    assert!(deep_report.longest_in_hand <= DeskOptions::default().hold, "{:?}", deep_report.longest_in_hand);
}

#[test]
fn the_same_again_gives_the_same_report() {
    let jobs = load::mixed(300, &capacity(), 1.0, 7);
    let fleet = Fleet::new(5, capacity());
    assert_eq!(fleet.run(&jobs, UNTIL), fleet.run(&jobs, UNTIL));
}

fn random_jobs() -> impl Strategy<Value = Vec<Job>> {
    let duration = (any::<bool>(), 1u64..60_000).prop_map(|(tiny, ms)| (tiny, if tiny { ms % 100 + 1 } else { ms }));
    let job = (0u64..60_000, crate::random::priorities(), 1u64..=8000, 1u64..=16, duration, 1u64..90_000).prop_map(
        |(released, priority, cpu, memory, (in_process, predicted), lasts)| Job {
            released: Time(Duration::from_millis(released)),
            priority,
            vector: ResourceVector::new(CpuMillis(cpu), Bytes::gib(memory)),
            predicted: Duration::from_millis(predicted),
            lasts: Duration::from_millis(lasts),
            in_process,
        },
    );
    prop::collection::vec(job, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_released_runs_in_the_end(jobs in random_jobs(), workers in 1usize..8) {
        let report = Fleet::new(workers, capacity()).run(&jobs, UNTIL);
        check(&report, &jobs);
        // Nothing lies idle for as long as a pause while there is work: the makespan is bounded by running one by one.
        let one_by_one: Duration = jobs.iter().map(|job| job.lasts + DeskOptions::default().longest_pause).sum();
        prop_assert!(report.makespan <= Duration::from_mins(1) + one_by_one);
    }
}
