//! The fleet as rows: what the frontend answered, added up and put in words. Pure.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use forecastle_protos::v1;
use forecastle_resources::{Priority, SizeClass};

use crate::fleet::{State, name, state};

/// The fleet at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) total: Gauges,
    pub(super) workers: Vec<WorkerRow>,
    pub(super) shares: Vec<ShareRow>,
    pub(super) queues: Vec<QueueRow>,
    pub(super) runs: Vec<RunRow>,
    /// Claims a second, of all queues.
    pub(super) claims_per_second: f64,
}

/// One resource: what there is, what is reserved of it, and what is used. CPU in thousandths of a core, memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gauge {
    pub(super) capacity: u64,
    pub(super) reserved: u64,
    pub(super) used: u64,
}

impl AddAssign for Gauge {
    fn add_assign(&mut self, other: Self) {
        self.capacity = self.capacity.saturating_add(other.capacity);
        self.reserved = self.reserved.saturating_add(other.reserved);
        self.used = self.used.saturating_add(other.used);
    }
}

/// CPU and memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gauges {
    pub(super) cpu: Gauge,
    pub(super) memory: Gauge,
}

impl AddAssign for Gauges {
    fn add_assign(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.memory += other.memory;
    }
}

/// A worker.
#[derive(Debug, Clone)]
pub(super) struct WorkerRow {
    pub(super) name: String,
    pub(super) fleet: String,
    pub(super) host: String,
    pub(super) version: String,
    pub(super) state: State,
    pub(super) gauges: Gauges,
    pub(super) runs: usize,
    pub(super) heard_ms: u64,
}

/// What a priority has of all workers together. A maximum that some worker does not set is none.
#[derive(Debug, Clone, Default)]
pub(super) struct ShareRow {
    pub(super) priority: String,
    pub(super) guaranteed: (u64, u64),
    pub(super) maximum: (Option<u64>, Option<u64>),
    pub(super) held: (u64, u64),
}

/// What waits of one fleet and priority, from the ledger to the claim.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct QueueRow {
    pub(super) fleet: String,
    pub(super) priority: String,
    pub(super) ready: u64,
    pub(super) held_back: u64,
    pub(super) backing_off: u64,
    /// Released and not claimed, in the order of [`SizeClass::ALL`].
    pub(super) unclaimed: [u64; SizeClass::ALL.len()],
    pub(super) claims_per_second: f64,
}

/// A run and its lease.
#[derive(Debug, Clone, Default)]
pub(super) struct RunRow {
    /// Empty where it is another tenant's.
    pub(super) shard: String,
    pub(super) run: String,
    pub(super) tenant: String,
    pub(super) request_type: String,
    pub(super) unit: String,
    pub(super) priority: String,
    pub(super) worker: String,
    pub(super) age_ms: u64,
    /// The capacities are its worker's.
    pub(super) gauges: Gauges,
    /// False where what it uses is not known: typed tasks run inside the worker.
    pub(super) measured: bool,
}

impl RunRow {
    /// What is reserved and not used, as a share of the worker, of the resource where that is most. From 0 to 1.
    pub(super) fn waste(&self) -> Option<f64> {
        let unused = |gauge: Gauge| match gauge.capacity {
            0 => 0.0,
            capacity => (gauge.reserved.saturating_sub(gauge.used) as f64 / capacity as f64).min(1.0),
        };
        self.measured.then(|| unused(self.gauges.cpu).max(unused(self.gauges.memory)))
    }
}

impl Snapshot {
    /// Of the frontend's answer.
    pub(super) fn of(fleet: &v1::FleetStatus) -> Self {
        let mut this = Self { queues: queues(fleet), ..Self::default() };
        this.claims_per_second = this.queues.iter().fold(0.0, |sum, queue| sum + queue.claims_per_second);
        let mut shares = Vec::new();
        for worker in &fleet.workers {
            let Some(report) = &worker.report else { continue };
            let capacity = amounts(report.capacity.as_ref());
            let mut gauges = Gauges {
                cpu: Gauge { capacity: capacity.0, ..Gauge::default() },
                memory: Gauge { capacity: capacity.1, ..Gauge::default() },
            };
            for lease in &report.leases {
                let run = run(report, lease, capacity, fleet.at_unix_ms);
                gauges.cpu.reserved += run.gauges.cpu.reserved;
                gauges.cpu.used += run.gauges.cpu.used;
                gauges.memory.reserved += run.gauges.memory.reserved;
                gauges.memory.used += run.gauges.memory.used;
                this.runs.push(run);
            }
            let state = state(worker);
            // What is gone, or going, has nothing to offer.
            if matches!(state, State::Live | State::Draining) {
                this.total += gauges;
                shares.extend(&report.shares);
            }
            this.workers.push(WorkerRow {
                name: name(report).to_owned(),
                fleet: report.fleet.clone(),
                host: report.host.clone(),
                version: report.version.clone(),
                state,
                gauges,
                runs: report.leases.len(),
                heard_ms: worker.age_ms,
            });
        }
        this.shares = share_rows(&shares);
        this
    }
}

/// CPU in thousandths of a core and memory in bytes.
fn amounts(vector: Option<&v1::ResourceVector>) -> (u64, u64) {
    vector.map_or((0, 0), |vector| (u64::from(vector.cpu_millis), vector.memory_bytes))
}

fn run(report: &v1::LoadReport, lease: &v1::LeaseReport, capacity: (u64, u64), now_ms: u64) -> RunRow {
    let held = amounts(lease.held.as_ref());
    let gauge = |capacity, reserved, used| Gauge { capacity, reserved, used };
    RunRow {
        shard: lease.shard_id.clone(),
        run: lease.run_id.clone(),
        tenant: lease.tenant.clone(),
        request_type: lease.request_type.clone(),
        unit: lease.unit.clone(),
        priority: lease.priority.clone(),
        worker: name(report).to_owned(),
        age_ms: now_ms.saturating_sub(lease.since_unix_ms),
        gauges: Gauges {
            cpu: gauge(capacity.0, held.0, u64::from(lease.cpu_millis_now)),
            memory: gauge(capacity.1, held.1, lease.memory_bytes_now),
        },
        measured: lease.memory_bytes_now > 0,
    }
}

/// Priorities in their order; those that have nothing are left out.
fn share_rows(reports: &[&v1::ShareReport]) -> Vec<ShareRow> {
    let row = |priority: Priority| {
        let of: Vec<_> = reports.iter().filter(|share| share.priority == priority.as_str()).collect();
        let sum = |part: fn(&v1::ShareReport) -> Option<&v1::ResourceVector>| {
            of.iter()
                .map(|share| amounts(part(share)))
                .fold((0, 0), |(a, b): (u64, u64), (c, d)| (a.saturating_add(c), b.saturating_add(d)))
        };
        let maximum = of.iter().map(|share| amounts(share.maximum.as_ref())).fold(
            (Some(0), Some(0)),
            |sum: (Option<u64>, Option<u64>), one| {
                let add = |sum: Option<u64>, one: u64| sum.filter(|_| one > 0).map(|sum| sum.saturating_add(one));
                (add(sum.0, one.0), add(sum.1, one.1))
            },
        );
        ShareRow {
            priority: priority.to_string(),
            guaranteed: sum(|share| share.guaranteed.as_ref()),
            maximum: if of.is_empty() { (None, None) } else { maximum },
            held: sum(|share| share.held.as_ref()),
        }
    };
    let has = |row: &ShareRow| row.guaranteed != (0, 0) || row.held != (0, 0) || row.maximum != (None, None);
    Priority::ALL.map(row).into_iter().filter(has).collect()
}

/// One row for each fleet and priority that has, or had, something to do.
fn queues(fleet: &v1::FleetStatus) -> Vec<QueueRow> {
    let rank = |priority: &str| Priority::ALL.iter().position(|p| p.as_str() == priority);
    let mut rows: BTreeMap<(String, Option<usize>), QueueRow> = BTreeMap::new();
    let mut row = |of: &str, priority: &str, change: &dyn Fn(&mut QueueRow)| {
        change(rows.entry((of.to_owned(), rank(priority))).or_insert_with(|| QueueRow {
            fleet: of.to_owned(),
            priority: priority.to_owned(),
            ..QueueRow::default()
        }));
    };
    for backlog in &fleet.backlog {
        row(&backlog.fleet, &backlog.priority, &|row| {
            row.ready += backlog.ready;
            row.held_back += backlog.held_back;
            row.backing_off += backlog.backing_off;
        });
    }
    for queue in &fleet.queues {
        row(&queue.fleet, &queue.priority, &|row| {
            row.claims_per_second += queue.claims_per_second;
            if let Some(class) = SizeClass::ALL.iter().position(|class| class.as_str() == queue.size_class) {
                row.unclaimed[class] += queue.unclaimed;
            }
        });
    }
    rows.into_values().collect()
}

#[cfg(test)]
pub(super) mod sample {
    //! A fleet for tests.

    use super::*;

    pub(in crate::top) const NOW: u64 = 1_000_000_000;

    fn vector(cpu_millis: u32, mib: u64) -> v1::ResourceVector {
        v1::ResourceVector { cpu_millis, memory_bytes: mib << 20, ..Default::default() }
    }

    pub(in crate::top) fn lease(number: u64, cpu: u32, mib: u64, used_cpu: u32, used_mib: u64) -> v1::LeaseReport {
        v1::LeaseReport {
            run_id: format!("run-{number}"),
            shard_id: format!("01980000-0000-7000-8000-00000000000{number}.0.{number}"),
            attempt: 1,
            held: Some(vector(cpu, mib)),
            since_unix_ms: NOW - number * 10_000,
            memory_bytes_now: used_mib << 20,
            tenant: "acme".to_owned(),
            request_type: "archive".to_owned(),
            unit: "compress".to_owned(),
            priority: "standard".to_owned(),
            size_class: "s".to_owned(),
            cpu_millis_now: used_cpu,
            ..Default::default()
        }
    }

    pub(in crate::top) fn worker(name: &str, leases: Vec<v1::LeaseReport>) -> v1::WorkerStatus {
        let standard = leases.iter().filter_map(|lease| lease.held.as_ref());
        let held = standard.fold(vector(0, 0), |sum, one| v1::ResourceVector {
            cpu_millis: sum.cpu_millis + one.cpu_millis,
            memory_bytes: sum.memory_bytes + one.memory_bytes,
            ..Default::default()
        });
        let report = v1::LoadReport {
            worker_id: name.to_owned(),
            worker_name: name.to_owned(),
            fleet: "default".to_owned(),
            capacity: Some(vector(4000, 8192)),
            interval_seconds: 1.0,
            host: "rack-7".to_owned(),
            version: "0.1.0".to_owned(),
            shares: vec![
                v1::ShareReport {
                    priority: "urgent".to_owned(),
                    guaranteed: Some(vector(1000, 1024)),
                    maximum: Some(vector(0, 4096)),
                    held: None,
                },
                v1::ShareReport { priority: "standard".to_owned(), held: Some(held), ..Default::default() },
                v1::ShareReport { priority: "batch".to_owned(), ..Default::default() },
            ],
            leases,
            ..Default::default()
        };
        v1::WorkerStatus { report: Some(report), age_ms: 400 }
    }

    /// Two workers and four runs: one that uses what it reserved, one that hardly does, one of another tenant, and one
    /// that is not measured.
    pub(in crate::top) fn fleet() -> v1::FleetStatus {
        let mut foreign = lease(3, 500, 512, 400, 100);
        for text in [&mut foreign.run_id, &mut foreign.shard_id, &mut foreign.tenant, &mut foreign.request_type] {
            text.clear();
        }
        let first = vec![lease(1, 1000, 1024, 980, 900), lease(2, 2000, 4096, 100, 256)];
        let second = vec![foreign, lease(4, 100, 64, 0, 0)];
        let queue = |size_class: &str, unclaimed, claims_per_second| v1::QueueStatus {
            fleet: "default".to_owned(),
            priority: "standard".to_owned(),
            size_class: size_class.to_owned(),
            unclaimed,
            claims_per_second,
            ..Default::default()
        };
        let backlog = |priority: &str, ready, held_back| v1::BacklogStatus {
            fleet: "default".to_owned(),
            priority: priority.to_owned(),
            ready,
            held_back,
            backing_off: 1,
        };
        v1::FleetStatus {
            workers: vec![worker("alpha", first), worker("beta", second)],
            at_unix_ms: NOW,
            operator: false,
            queues: vec![queue("s", 4, 12.25), queue("xl", 2, 0.0)],
            backlog: vec![backlog("batch", 100, 7), backlog("standard", 20, 0)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_hold_and_use_is_added_up() {
        let snapshot = Snapshot::of(&sample::fleet());
        let alpha = &snapshot.workers[0];
        assert_eq!(alpha.gauges.cpu, Gauge { capacity: 4000, reserved: 3000, used: 1080 });
        assert_eq!(alpha.gauges.memory, Gauge { capacity: 8192 << 20, reserved: 5120 << 20, used: 1156 << 20 });
        assert_eq!(snapshot.total.cpu, Gauge { capacity: 8000, reserved: 3600, used: 1480 });
        assert_eq!(snapshot.runs[1].age_ms, 20_000);
        assert!((snapshot.claims_per_second - 12.25).abs() < 1e-9);
    }

    #[test]
    fn a_worker_that_is_silent_adds_nothing_to_the_total() {
        let mut fleet = sample::fleet();
        fleet.workers[0].age_ms = 60_000;
        let snapshot = Snapshot::of(&fleet);
        assert_eq!((snapshot.workers[0].state, snapshot.total.cpu.capacity), (State::Silent, 4000));
        assert_eq!(snapshot.runs.len(), 4, "what is known of its runs is shown all the same");
    }

    #[test]
    fn waste_is_the_unused_part_of_what_is_most_and_unknown_without_a_measurement() {
        let runs = Snapshot::of(&sample::fleet()).runs;
        let waste: Vec<_> = runs.iter().map(RunRow::waste).collect();
        assert!((waste[1].unwrap() - 0.475).abs() < 1e-9, "1.9 of 4 cores is more than 3840 of 8192 MiB: {waste:?}");
        assert!(waste[0].unwrap() < 0.02);
        assert_eq!(waste[3], None);
    }

    #[test]
    fn shares_are_summed_and_an_open_maximum_stays_open() {
        let shares = Snapshot::of(&sample::fleet()).shares;
        assert_eq!(shares.len(), 2, "batch has nothing: {shares:?}");
        assert_eq!(shares[0].guaranteed, (2000, 2048 << 20));
        assert_eq!(shares[0].maximum, (None, Some(8192 << 20)));
        assert_eq!((shares[1].held, shares[1].maximum), ((3600, 5696 << 20), (None, None)));
    }

    #[test]
    fn what_waits_has_a_row_for_each_priority_in_their_order() {
        let queues = Snapshot::of(&sample::fleet()).queues;
        assert_eq!(queues.iter().map(|row| &*row.priority).collect::<Vec<_>>(), ["standard", "batch"]);
        assert_eq!((queues[0].ready, queues[0].unclaimed), (20, [0, 4, 0, 0, 2]));
        assert_eq!((queues[1].ready, queues[1].held_back, queues[1].unclaimed), (100, 7, [0; 5]));
    }

    #[test]
    fn an_answer_with_nothing_in_it_is_an_empty_fleet() {
        let mut fleet = v1::FleetStatus::default();
        fleet.workers.push(v1::WorkerStatus::default());
        fleet.workers.push(v1::WorkerStatus { report: Some(v1::LoadReport::default()), age_ms: 0 });
        let snapshot = Snapshot::of(&fleet);
        assert_eq!((snapshot.workers.len(), snapshot.total), (1, Gauges::default()));
    }
}
