//! The fleet once, as tables.

use comfy_table::Cell;
use forecastle_protos::v1;
use forecastle_resources::SizeClass;

use super::cells::used_of;
use super::controls::{Controls, state_name};
use super::snapshot::{Gauge, Snapshot};
use crate::failure::Failure;
use crate::output::{Output, plain};
use crate::quantities::{bytes, cores, span};

/// Prints it: totals, then workers, shares, what waits, and runs. Tables with nothing in them are left out.
pub(super) fn print(output: Output, fleet: &v1::FleetStatus, controls: &Controls) -> Result<(), Failure> {
    let snapshot = Snapshot::of(fleet);
    let (cpu, memory) = (snapshot.total.cpu, snapshot.total.memory);
    output.line(&format!(
        "cpu: {} used, {} reserved of {}\nmemory: {} used, {} reserved of {}\nclaims: {:.1} a second",
        cores(cpu.used as f64),
        cores(cpu.reserved as f64),
        cores(cpu.capacity as f64),
        bytes(memory.used),
        bytes(memory.reserved),
        bytes(memory.capacity),
        snapshot.claims_per_second,
    ))?;
    for (header, rows) in
        [workers(&snapshot, controls), shares(&snapshot), queues(&snapshot), runs(&snapshot, controls)]
    {
        if !rows.is_empty() {
            output.line("")?;
            output.table(&header, rows)?;
        }
    }
    Ok(())
}

type Rows = (Vec<&'static str>, Vec<Vec<Cell>>);

fn of_three(gauge: Gauge, text: impl Fn(u64) -> String) -> String {
    format!("{} / {} / {}", text(gauge.used), text(gauge.reserved), text(gauge.capacity))
}

fn cores_of(millis: u64) -> String {
    cores(millis as f64)
}

fn workers(snapshot: &Snapshot, controls: &Controls) -> Rows {
    let header =
        vec!["WORKER", "FLEET", "HOST", "VERSION", "STATE", "CPU USED / RESERVED / ALL", "MEMORY", "RUNS", "HEARD"];
    let rows = controls.workers(snapshot).into_iter().map(|worker| {
        vec![
            plain(&worker.name),
            plain(&worker.fleet),
            plain(&worker.host),
            plain(&worker.version),
            plain(state_name(worker.state)),
            plain(of_three(worker.gauges.cpu, cores_of)),
            plain(of_three(worker.gauges.memory, bytes)),
            plain(worker.runs.to_string()),
            plain(format!("{} ago", span(worker.heard_ms))),
        ]
    });
    (header, rows.collect())
}

fn shares(snapshot: &Snapshot) -> Rows {
    let amounts = |(cpu, memory): (u64, u64)| format!("{}, {}", cores_of(cpu), bytes(memory));
    let bound = |(cpu, memory): (Option<u64>, Option<u64>)| {
        let all = || "all".to_owned();
        format!("{}, {}", cpu.map_or_else(all, cores_of), memory.map_or_else(all, bytes))
    };
    let rows = snapshot.shares.iter().map(|share| {
        [share.priority.clone(), amounts(share.held), amounts(share.guaranteed), bound(share.maximum)].map(plain).into()
    });
    (vec!["SHARES", "HELD", "GUARANTEED", "AT MOST"], rows.collect())
}

fn queues(snapshot: &Snapshot) -> Rows {
    let mut header = vec!["FLEET", "PRIORITY", "READY", "NO WORKER", "BACKOFF"];
    header.extend(SizeClass::ALL.map(SizeClass::as_str));
    header.push("CLAIMS/S");
    let rows = snapshot.queues.iter().map(|queue| {
        let mut row = vec![plain(&queue.fleet), plain(&queue.priority)];
        let numbers = [queue.ready, queue.held_back, queue.backing_off].into_iter().chain(queue.unclaimed);
        row.extend(numbers.map(|number| plain(number.to_string())));
        row.push(plain(format!("{:.1}", queue.claims_per_second)));
        row
    });
    (header, rows.collect())
}

fn runs(snapshot: &Snapshot, controls: &Controls) -> Rows {
    let rows = controls.runs(snapshot).into_iter().map(|run| {
        let waste = run.waste().map_or_else(|| "-".to_owned(), |waste| format!("{:.0} %", waste * 100.0));
        let whose = if run.shard.is_empty() { "another tenant's" } else { &run.shard };
        vec![
            plain(span(run.age_ms)),
            plain(&run.request_type),
            plain(&run.unit),
            plain(&run.worker),
            plain(&run.priority),
            plain(used_of(run, run.gauges.cpu, cores_of)),
            plain(used_of(run, run.gauges.memory, bytes)),
            plain(waste),
            plain(whose),
        ]
    });
    (vec!["AGE", "TYPE", "UNIT", "WORKER", "PRIORITY", "CPU", "MEMORY", "WASTE", "SHARD"], rows.collect())
}
