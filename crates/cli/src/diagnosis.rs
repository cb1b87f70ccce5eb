//! What the doctor concludes from what it was told. Pure.

use std::collections::{BTreeMap, BTreeSet};

use forecastle_protos::v1;
use serde::Serialize;

use crate::fleet::{State, name, state};
use crate::output::count;
use crate::quantities::{bytes, cores};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// A check and its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What was looked at.
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it; empty if nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) advice: String,
}

impl Check {
    pub(crate) fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Ok, found: found.into(), advice: String::new() }
    }

    pub(crate) fn warn(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Warn, found: found.into(), advice: advice.into() }
    }

    pub(crate) fn fail(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Fail, found: found.into(), advice: advice.into() }
    }
}

/// The frontend's version against ours.
pub(crate) fn version(description: &serde_json::Value) -> Check {
    let ours = env!("CARGO_PKG_VERSION");
    match description.pointer("/info/version").and_then(serde_json::Value::as_str) {
        Some(theirs) if theirs == ours => Check::ok("version", format!("frontend and command line are {ours}")),
        Some(theirs) => Check::warn(
            "version",
            format!("the frontend is {theirs}, this command line is {ours}"),
            "use the same version of both",
        ),
        None => Check::warn("version", "the frontend does not tell its version", "is something else at this URL?"),
    }
}

/// Who lives, with what, and whether reservations are enforced.
pub(crate) fn workers(fleet: &v1::FleetStatus) -> Vec<Check> {
    let live: Vec<_> = reports(fleet, |state| state == State::Live).collect();
    let mut checks = Vec::new();
    if live.is_empty() {
        let found = match reports(fleet, |_| true).count() {
            0 => "no worker has reported".to_owned(),
            others => format!("none of {} takes work: they drain, leave or are silent", count(others as u64, "worker")),
        };
        checks.push(Check::fail(
            "workers",
            found,
            "start one with forecastle-worker, on the same RabbitMQ as the frontend",
        ));
        return checks;
    }
    let capacity = |of: fn(&v1::ResourceVector) -> u64| {
        live.iter().filter_map(|report| report.capacity.as_ref()).map(of).fold(0u64, u64::saturating_add)
    };
    let (cpu, memory) = (capacity(|vector| vector.cpu_millis.into()), capacity(|vector| vector.memory_bytes));
    let found = format!("{} with {} and {}", count(live.len() as u64, "live worker"), cores(cpu as f64), bytes(memory));
    checks.push(Check::ok("workers", found));
    let silent: Vec<_> = reports(fleet, |state| state == State::Silent).map(name).collect();
    if !silent.is_empty() {
        let found = format!("not heard of for several reports: {}", silent.join(", "));
        checks.push(Check::warn(
            "silent workers",
            found,
            "look at their logs; their work is given to others after a grace",
        ));
    }
    let loose: Vec<_> =
        live.iter().filter(|report| !report.enforcement.starts_with("cgroup")).map(|r| name(r)).collect();
    checks.push(if loose.is_empty() {
        let by: BTreeSet<_> = live.iter().map(|report| &*report.enforcement).collect();
        Check::ok(
            "enforcement",
            format!("reservations are enforced by {}", by.into_iter().collect::<Vec<_>>().join(", ")),
        )
    } else {
        Check::warn(
            "enforcement",
            format!("reservations are measured but not enforced on {}", loose.join(", ")),
            "give these workers a cgroup that they may write to (delegation, or root)",
        )
    });
    checks
}

/// Whether every unit of every request type has a live worker in its fleet.
pub(crate) fn runnable(types: &v1::RequestTypeList, fleet: &v1::FleetStatus) -> Vec<Check> {
    if types.types.is_empty() {
        return vec![Check::warn(
            "request types",
            "the catalogue has none",
            "the frontend's option catalogue.path names it",
        )];
    }
    let mut units: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for report in reports(fleet, |state| state == State::Live) {
        units.entry(&report.fleet).or_default().extend(report.units.iter().map(|unit| &**unit));
    }
    let mut checks = Vec::new();
    for info in &types.types {
        let name = format!("type {}", info.name);
        let Some(present) = units.get(&*info.fleet) else {
            let found = format!("its fleet {} has no live worker", info.fleet);
            checks.push(Check::fail(name, found, "start a worker of this fleet"));
            continue;
        };
        let wanted: BTreeSet<_> = info.stages.iter().flat_map(|stage| &stage.units).map(|unit| &**unit).collect();
        let missing: Vec<_> = wanted.difference(present).copied().collect();
        checks.push(if missing.is_empty() {
            Check::ok(name, format!("fleet {} can run all its units", info.fleet))
        } else {
            let found = format!("no live worker of fleet {} has: {}", info.fleet, missing.join(", "));
            Check::fail(name, found, "start the workers with the frontend's catalogue")
        });
    }
    checks
}

/// What the frontend's `/readyz` says.
pub(crate) fn readiness(status: u16, body: &str) -> Check {
    let waiting: Vec<String> = serde_json::from_str::<serde_json::Value>(body)
        .ok()
        .and_then(|body| serde_json::from_value(body.get("waiting_for")?.clone()).ok())
        .unwrap_or_default();
    match status {
        200 => Check::ok("readiness", "the frontend is ready: ledger, broker and all"),
        503 if !waiting.is_empty() => Check::fail(
            "readiness",
            format!("the frontend waits for: {}", waiting.join(", ")),
            "its log says why; work that was accepted is safe meanwhile",
        ),
        other => Check::fail(
            "readiness",
            format!("/readyz answers {other}"),
            "is --admin-url the frontend's admin endpoint?",
        ),
    }
}

fn reports(fleet: &v1::FleetStatus, wanted: impl Fn(State) -> bool) -> impl Iterator<Item = &v1::LoadReport> {
    fleet.workers.iter().filter(move |worker| wanted(state(worker))).filter_map(|worker| worker.report.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn worker(name: &str, fleet: &str, units: &[&str], enforcement: &str) -> v1::WorkerStatus {
        let report = v1::LoadReport {
            worker_name: name.to_owned(),
            fleet: fleet.to_owned(),
            capacity: Some(v1::ResourceVector { cpu_millis: 1000, memory_bytes: 1 << 30, ..Default::default() }),
            units: units.iter().map(ToString::to_string).collect(),
            interval_seconds: 1.0,
            enforcement: enforcement.to_owned(),
            ..Default::default()
        };
        v1::WorkerStatus { report: Some(report), age_ms: 100 }
    }

    fn types() -> v1::RequestTypeList {
        let stage = v1::StageInfo { units: vec!["compress".to_owned(), "index".to_owned()], ..Default::default() };
        let info = v1::RequestTypeInfo {
            name: "archive".to_owned(),
            fleet: "default".to_owned(),
            stages: vec![stage],
            ..Default::default()
        };
        v1::RequestTypeList { types: vec![info] }
    }

    fn verdicts(checks: &[Check]) -> Vec<Verdict> {
        for check in checks {
            assert_eq!(check.verdict == Verdict::Ok, check.advice.is_empty(), "{check:?}");
        }
        checks.iter().map(|check| check.verdict).collect()
    }

    fn fleet_of(workers: Vec<v1::WorkerStatus>) -> v1::FleetStatus {
        v1::FleetStatus { workers, ..Default::default() }
    }

    #[test]
    fn a_healthy_fleet_is_ok_and_its_capacity_is_added_up() {
        let all = ["compress", "index", "other"];
        let fleet =
            fleet_of(vec![worker("a", "default", &all, "cgroup-v2"), worker("b", "default", &all, "cgroup-v1")]);
        let checks = workers(&fleet);
        assert_eq!(verdicts(&checks), [Verdict::Ok, Verdict::Ok]);
        assert_eq!(checks[0].found, "2 live workers with 2 cores and 2 GiB");
        assert_eq!(verdicts(&runnable(&types(), &fleet)), [Verdict::Ok]);
    }

    #[test]
    fn without_workers_nothing_can_run() {
        let none = v1::FleetStatus::default();
        assert_eq!(verdicts(&workers(&none)), [Verdict::Fail]);
        assert_eq!(verdicts(&runnable(&types(), &none)), [Verdict::Fail]);
        let mut draining = worker("a", "default", &["compress", "index"], "cgroup-v2");
        draining.report.as_mut().unwrap().draining = true;
        let fleet = fleet_of(vec![draining]);
        assert_eq!(verdicts(&workers(&fleet)), [Verdict::Fail]);
        assert_eq!(verdicts(&runnable(&types(), &fleet)), [Verdict::Fail]);
    }

    #[test]
    fn a_missing_unit_or_fleet_is_named() {
        let fleet = fleet_of(vec![worker("a", "default", &["compress"], "cgroup-v2")]);
        let checks = runnable(&types(), &fleet);
        assert!(checks[0].found.contains("index") && !checks[0].found.contains("compress"), "{checks:?}");
        let elsewhere = fleet_of(vec![worker("a", "gpu", &["compress", "index"], "cgroup-v2")]);
        assert!(runnable(&types(), &elsewhere)[0].found.contains("fleet default has no live worker"));
        // Units may be spread over the workers of a fleet.
        let spread = fleet_of(vec![
            worker("a", "default", &["compress"], "cgroup-v2"),
            worker("b", "default", &["index"], "rusage"),
        ]);
        assert_eq!(verdicts(&runnable(&types(), &spread)), [Verdict::Ok]);
    }

    #[test]
    fn a_worker_that_only_measures_and_a_silent_one_are_warned_of() {
        let mut silent = worker("s", "default", &[], "cgroup-v2");
        silent.age_ms = 60_000;
        let fleet = fleet_of(vec![worker("a", "default", &[], "rusage"), silent]);
        let checks = workers(&fleet);
        assert_eq!(verdicts(&checks), [Verdict::Ok, Verdict::Warn, Verdict::Warn]);
        assert!(checks[1].found.contains('s') && checks[2].found.contains("not enforced on a"), "{checks:?}");
    }

    #[test]
    fn versions_and_readiness_are_judged() {
        assert_eq!(version(&json!({"info": {"version": env!("CARGO_PKG_VERSION")}})).verdict, Verdict::Ok);
        assert_eq!(version(&json!({"info": {"version": "99"}})).verdict, Verdict::Warn);
        assert_eq!(version(&json!([])).verdict, Verdict::Warn);
        assert_eq!(readiness(200, "{\"ready\":true,\"waiting_for\":[]}").verdict, Verdict::Ok);
        let waits = readiness(503, "{\"ready\":false,\"waiting_for\":[\"broker\"]}");
        assert!(waits.verdict == Verdict::Fail && waits.found.contains("broker"), "{waits:?}");
        assert_eq!(readiness(404, "no").verdict, Verdict::Fail);
    }
}
