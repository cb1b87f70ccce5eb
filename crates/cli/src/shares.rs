//! `shares`: what priorities have of workers' capacities, shown and changed while the workers run.

use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use forecastle_protos::v1;
use forecastle_resources::{Priority, ResourceVector};
use tokio::time::Instant;

use crate::api::Api;
use crate::failure::Failure;
use crate::fleet;
use crate::output::{Output, plain};
use crate::quantities::vector;

const EXAMPLES: &str = "\
Examples:
  forecastle shares list
  forecastle shares set urgent --guaranteed cpu=2,memory=4GiB
  forecastle shares set batch --maximum cpu=6,memory=12GiB --fleet nightly
  forecastle shares set urgent --worker 01980000-0000-7000-8000-000000000000     takes everything back

What runs keeps what it holds. A worker that starts anew has the shares of its configuration.";

/// How long workers may take to say that they have the shares.
const PATIENCE: Duration = Duration::from_secs(15);

/// Show and change what is guaranteed to priorities, and the most that they may hold
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Shares {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List every worker's shares as of its last report
    List,
    /// Give a priority another share of workers that run, and wait until they say so; needs an operator's token
    Set(Set),
}

/// A priority, and its share from now on.
#[derive(Debug, Args)]
struct Set {
    /// urgent, standard or batch
    #[arg(value_name = "PRIORITY")]
    priority: Priority,
    /// Kept free for it, but for lending; nothing if this is missing
    #[arg(long, value_name = "RESOURCE=AMOUNT,…")]
    guaranteed: Option<ResourceVector>,
    /// The most that it may hold; not bounded if this is missing
    #[arg(long, value_name = "RESOURCE=AMOUNT,…")]
    maximum: Option<ResourceVector>,
    /// Of every worker of this fleet
    #[arg(long, value_name = "NAME", default_value = "default", conflicts_with = "worker")]
    fleet: String,
    /// Of this worker only, by its name or id
    #[arg(long, value_name = "WORKER")]
    worker: Option<String>,
}

impl Shares {
    /// Runs the command.
    pub(crate) async fn run(self, api: &Api, output: Output) -> Result<(), Failure> {
        match self.command {
            Command::List => list(api, output).await,
            Command::Set(set) => set.run(api, output).await,
        }
    }
}

async fn list(api: &Api, output: Output) -> Result<(), Failure> {
    let fleet = api.fleet().await?;
    if output.json {
        return output.document(&fleet);
    }
    let reports = fleet.workers.iter().filter_map(|worker| worker.report.as_ref());
    let rows: Vec<_> = reports.flat_map(|report| report.shares.iter().map(move |share| row(report, share))).collect();
    if rows.is_empty() {
        output.note("no worker has reported its shares; start one with forecastle-worker");
        return Ok(());
    }
    output.table(&["WORKER", "FLEET", "PRIORITY", "GUARANTEED", "AT MOST", "HOLDS"], rows)
}

fn row(report: &v1::LoadReport, share: &v1::ShareReport) -> Vec<Cell> {
    let amount = |told: &Option<v1::ResourceVector>, nothing: &str| match told {
        Some(told) if *told != v1::ResourceVector::default() => vector(told),
        _ => nothing.to_owned(),
    };
    vec![
        plain(fleet::name(report)),
        plain(&report.fleet),
        plain(&share.priority),
        plain(amount(&share.guaranteed, "-")),
        plain(amount(&share.maximum, "not bounded")),
        plain(amount(&share.held, "-")),
    ]
}

impl Set {
    async fn run(self, api: &Api, output: Output) -> Result<(), Failure> {
        let (worker_id, fleet) = match &self.worker {
            Some(worker) => (id_of(api, worker).await?, String::new()),
            None => (String::new(), self.fleet.clone()),
        };
        let guaranteed = v1::ResourceVector::from(&self.guaranteed.unwrap_or_default());
        let maximum = v1::ResourceVector::from(&self.maximum.unwrap_or_default());
        let priority = self.priority.to_string();
        let setting = v1::ShareSetting {
            priority: priority.clone(),
            guaranteed: Some(guaranteed.clone()),
            maximum: Some(maximum.clone()),
        };
        let asked = api.set_shares(&v1::SetShares { worker_id, fleet, shares: vec![setting] }).await?;
        let has = |report: &v1::LoadReport| {
            let same = |told: &Option<v1::ResourceVector>, wanted: &v1::ResourceVector| {
                told.as_ref().unwrap_or(&v1::ResourceVector::default()) == wanted
            };
            report.shares.iter().any(|share| {
                share.priority == priority && same(&share.guaranteed, &guaranteed) && same(&share.maximum, &maximum)
            })
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = api.fleet().await?;
            let reports = || status.workers.iter().filter_map(|worker| worker.report.as_ref());
            // One that has left meanwhile needs no shares.
            let missing: Vec<_> =
                reports().filter(|report| asked.worker_ids.contains(&report.worker_id) && !has(report)).collect();
            if missing.is_empty() {
                break;
            }
            if Instant::now() >= deadline {
                let names = missing.into_iter().map(fleet::name).collect::<Vec<_>>().join(", ");
                return Err(Failure::Rejected(v1::ErrorDetail {
                    code: "shares-not-confirmed".to_owned(),
                    message: format!("no report of these shares within {PATIENCE:?} from: {names}"),
                    field: String::new(),
                }));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if output.json {
            return output.document(&asked);
        }
        let count = asked.worker_ids.len();
        output.note(&format!("{count} {} the shares", if count == 1 { "worker has" } else { "workers have" }));
        Ok(())
    }
}

/// The id of a live worker, by that or by its name.
async fn id_of(api: &Api, worker: &str) -> Result<String, Failure> {
    let fleet = api.fleet().await?;
    let reports = fleet.workers.into_iter().filter_map(|status| status.report);
    let found: Vec<_> = reports.filter(|report| report.worker_id == worker || report.worker_name == worker).collect();
    match &found[..] {
        [one] => Ok(one.worker_id.clone()),
        [] => Err(Failure::Usage(format!("no live worker is called {worker}; `forecastle fleet` lists them"))),
        _ => {
            Err(Failure::Usage(format!("several workers are called {worker}; `forecastle fleet --json` has their ids")))
        }
    }
}
