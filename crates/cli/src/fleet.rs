//! `fleet`: the workers.

use comfy_table::Cell;
use forecastle_protos::v1;

use crate::api::Api;
use crate::failure::Failure;
use crate::output::{Output, Tone, plain};
use crate::quantities::{span, vector};

/// Reports that may be missed before a worker counts as silent.
const MISSED_REPORTS: f64 = 3.0;

/// Lists the workers.
pub(crate) async fn run(api: &Api, output: Output) -> Result<(), Failure> {
    let fleet = api.fleet().await?;
    if output.json {
        return output.document(&fleet);
    }
    if fleet.workers.is_empty() {
        output.note("no worker has reported; start one with forecastle-worker");
        return Ok(());
    }
    let header = ["WORKER", "FLEET", "STATE", "CAPACITY", "FREE", "RUNS", "ENFORCES BY", "HEARD"];
    output.table(&header, fleet.workers.iter().map(|worker| row(output, worker)).collect())
}

fn row(output: Output, worker: &v1::WorkerStatus) -> Vec<Cell> {
    let report = worker.report.clone().unwrap_or_default();
    let (state, tone) = match state(worker) {
        State::Live => ("live", Tone::Good),
        State::Draining => ("draining", Tone::Doubtful),
        State::Leaving => ("leaving", Tone::Doubtful),
        State::Silent => ("silent", Tone::Bad),
    };
    let amount = |vector_of: &Option<v1::ResourceVector>| vector_of.as_ref().map(vector).unwrap_or_default();
    vec![
        plain(name(&report)),
        plain(&report.fleet),
        output.cell(state, tone),
        plain(amount(&report.capacity)),
        plain(amount(&report.free)),
        plain(report.leases.len().to_string()),
        plain(&report.enforcement),
        plain(format!("{} ago", span(worker.age_ms))),
    ]
}

/// The operator's name for a worker, else its id.
pub(crate) fn name(report: &v1::LoadReport) -> &str {
    if report.worker_name.is_empty() { &report.worker_id } else { &report.worker_name }
}

/// What a worker is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It takes work.
    Live,
    /// It finishes what it has.
    Draining,
    /// It has said goodbye.
    Leaving,
    /// Several of its reports are missing.
    Silent,
}

/// From its last report and how long ago that was.
pub(crate) fn state(worker: &v1::WorkerStatus) -> State {
    let Some(report) = &worker.report else { return State::Silent };
    // Reports without an interval are taken to come every second.
    let interval = if report.interval_seconds > 0.0 { report.interval_seconds } else { 1.0 };
    if report.leaving {
        State::Leaving
    } else if worker.age_ms as f64 > 1000.0 * (interval * MISSED_REPORTS + 1.0) {
        State::Silent
    } else if report.draining {
        State::Draining
    } else {
        State::Live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_silent_after_missing_several_of_its_own_reports() {
        let worker = |age_ms, interval_seconds| v1::WorkerStatus {
            report: Some(v1::LoadReport { interval_seconds, ..Default::default() }),
            age_ms,
        };
        assert_eq!(state(&worker(3_900, 1.0)), State::Live);
        assert_eq!(state(&worker(4_100, 1.0)), State::Silent);
        assert_eq!(state(&worker(4_100, 10.0)), State::Live);
        assert_eq!(state(&worker(4_100, 0.0)), State::Silent);
        assert_eq!(state(&v1::WorkerStatus::default()), State::Silent);
        let mut leaving = worker(0, 1.0);
        leaving.report.as_mut().unwrap().draining = true;
        assert_eq!(state(&leaving), State::Draining);
        leaving.report.as_mut().unwrap().leaving = true;
        assert_eq!(state(&leaving), State::Leaving);
    }
}
