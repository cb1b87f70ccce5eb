//! What must hold after a run, in the ledger, in ClickHouse and on the machine.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use forecastle_frontend::catalogue_store::CatalogueStore;
use forecastle_frontend::failure_policy::CataloguePolicy;
use forecastle_frontend::ledger::Ledger as _;
use forecastle_frontend::ledger::sqlite::SqliteLedger;
use forecastle_protos::ids::RunId;
use forecastle_simulation::audit::{self, Told};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::means;
use crate::stack::Stack;
use crate::system::System;

/// How long what was killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks into the ledger and ClickHouse, once the frontend has left. Answers how many runs there were.
pub async fn records(system: &System, violations: &mut Vec<String>) -> anyhow::Result<usize> {
    let catalogue = Arc::new(CatalogueStore::load(system.catalogue())?);
    let ledger = SqliteLedger::open(&system.data(), Arc::new(CataloguePolicy::new(catalogue)))?;
    let events = ledger.events_after(0, u32::MAX).await?;
    audit::winners(&events, violations);
    let history = history(system).await?;
    audit::history_agrees(&events, &history, violations);
    let claims = ledger.claims().await?;
    if !claims.is_empty() {
        violations.push(format!("the ledger still has runs: {claims:?}"));
    }
    let open = ledger.open_work().await?;
    if !(open.in_flight.is_empty() && open.ready.is_empty() && open.backing_off.is_empty()) {
        violations.push(format!("the ledger still has work: {open:?}"));
    }
    ledger.close().await;
    Ok(events.len())
}

/// Runs that the ledger has as running, while its frontend uses it: those of workers that died stay until the sweeper
/// has given them up, also when their request has ended.
pub fn live_runs(system: &System) -> anyhow::Result<i64> {
    let file = system.data().join("ledger.sqlite3");
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(connection.query_row("SELECT count(*) FROM runs", [], |row| row.get(0))?)
}

async fn history(system: &System) -> anyhow::Result<Vec<Told>> {
    let query =
        "SELECT toString(run_id) AS run, shard_id AS shard, winning, toString(ledger_seq) AS seq FROM runs FINAL";
    let text = ask(system.stack(), system.database(), query).await?;
    text.lines().map(told).collect()
}

fn told(line: &str) -> anyhow::Result<Told> {
    let row: Value = serde_json::from_str(line)?;
    let text = |name: &str| row[name].as_str().with_context(|| format!("no {name} in {line}"));
    let run: RunId = text("run")?.parse()?;
    let winning = row["winning"].as_bool().or_else(|| Some(row["winning"].as_u64()? == 1)).unwrap_or_default();
    Ok(Told { run, shard: text("shard")?.to_owned(), winning, ledger_seq: text("seq")?.parse()? })
}

async fn ask(stack: &Stack, database: &str, query: &str) -> anyhow::Result<String> {
    let answer = reqwest::Client::new()
        .post(stack.variable("FORECASTLE_CLICKHOUSE_URL")?)
        .header("X-ClickHouse-Database", database)
        .header("X-ClickHouse-User", stack.variable("FORECASTLE_CLICKHOUSE_USER")?)
        .header("X-ClickHouse-Key", stack.variable("FORECASTLE_CLICKHOUSE_PASSWORD")?)
        .body(format!("{query} FORMAT JSONEachRow"))
        .send()
        .await?;
    let (status, text) = (answer.status(), answer.text().await?);
    anyhow::ensure!(status.is_success(), "ClickHouse: {status}: {text}");
    Ok(text)
}

/// The manifest names every shard of a request once.
pub async fn manifest(system: &System, request: &str, status: &Value) -> anyhow::Result<Option<String>> {
    let stages = status["stages"].as_array().context("a status without stages")?;
    let expected: u64 = stages.iter().filter_map(|stage| stage["shards"].as_u64()).sum();
    let (mut shards, mut named, mut cursor) = (BTreeSet::new(), 0, String::new());
    loop {
        let page = system.get(&format!("/v1/requests/{request}/result?limit=100{cursor}")).await?;
        for shard in page["shards"].as_array().into_iter().flatten() {
            named += 1;
            shards.insert(shard["shardId"].as_str().unwrap_or_default().to_owned());
        }
        match page["nextCursor"].as_str() {
            Some(next) if !next.is_empty() => cursor = format!("&cursor={next}"),
            _ => break,
        }
    }
    let once = shards.len() as u64 == expected && named == shards.len();
    Ok((!once).then(|| {
        format!("request {request} has {expected} shards, its manifest names {named}, {} different", shards.len())
    }))
}

/// The lives of workers, by what they logged.
fn lives(system: &System) -> anyhow::Result<BTreeSet<String>> {
    let mut lives = BTreeSet::new();
    for entry in std::fs::read_dir(system.folder())? {
        let path = entry?.path();
        let is_log = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("worker-"));
        if is_log && path.extension().is_some_and(|extension| extension == "log") {
            let text = std::fs::read_to_string(path)?;
            let up = text.lines().filter(|line| line.contains("the worker is up"));
            lives.extend(up.filter_map(|line| {
                let id = line.split("worker=").nth(1)?.split([' ', ',']).next()?;
                Some(id.trim_matches('"').to_owned())
            }));
        }
    }
    Ok(lives)
}

/// No process and no cgroup is left of any life. Answers how many lives there were.
pub fn machine(system: &System, violations: &mut Vec<String>) -> anyhow::Result<usize> {
    let lives = lives(system)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = left(system.folder(), &lives);
        if left.is_empty() {
            return Ok(lives.len());
        }
        if Instant::now() > deadline {
            violations.extend(left);
            return Ok(lives.len());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn left(folder: &Path, lives: &BTreeSet<String>) -> Vec<String> {
    let mut left = means::processes_of(folder);
    for life in lives {
        left.extend(means::cgroups_of(life).into_iter().map(|cgroup| format!("cgroup {}", cgroup.display())));
    }
    if let Ok(scratch) = std::fs::read_dir(folder.join("scratch")) {
        left.extend(scratch.flatten().map(|entry| format!("scratch {}", entry.path().display())));
    }
    left
}
