//! The frontend's configuration: defaults → file → `FORECASTLE__…` → command line, all of it checked before the first
//! connection.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use forecastle_broker::rabbitmq;
use forecastle_catalogue::HumanDuration;
use forecastle_forecast::experts::ExpertOptions;
use forecastle_history::{HistoryOptions, Password};
use forecastle_resources::{Bytes, ReferenceWorker};
use forecastle_service::{AdminOptions, LogOptions, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ingress::http::HttpOptions;

/// Everything that can be configured.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FrontendOptions {
    /// The ledger and what lies beside it.
    pub data: DataOptions,
    /// The catalogue of request types.
    pub catalogue: CatalogueOptions,
    /// Where inputs may come from.
    pub input: InputOptions,
    /// RabbitMQ.
    pub broker: rabbitmq::Options,
    /// ClickHouse.
    pub history: HistorySection,
    /// The HTTP API.
    pub http: HttpOptions,
    /// Requests over AMQP.
    pub amqp: AmqpOptions,
    /// Forecasting and size classes.
    pub forecast: ForecastOptions,
    /// Work that does not go its way.
    pub sweeper: SweeperOptions,
    /// Metrics and health.
    pub admin: AdminOptions,
    /// Logs.
    pub logs: LogOptions,
}

/// The ledger and what lies beside it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataOptions {
    /// The folder of the ledger, its lock and the generated token. Its disk's durability is the ledger's.
    pub directory: PathBuf,
    /// How long requests that have ended are kept.
    pub retention: HumanDuration,
}

impl Default for DataOptions {
    fn default() -> Self {
        let retention = HumanDuration(Duration::from_hours(7 * 24));
        Self { directory: PathBuf::from(".forecastle/frontend"), retention }
    }
}

/// The catalogue of request types.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CatalogueOptions {
    /// The file. It is read again when it changes; one with errors changes nothing.
    pub path: PathBuf,
}

impl Default for CatalogueOptions {
    fn default() -> Self {
        Self { path: PathBuf::from("catalogue.toml") }
    }
}

/// Where inputs may come from.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InputOptions {
    /// Folders that inputs may come from; each must exist. With none, no request may name an input.
    pub allowed_roots: Vec<PathBuf>,
}

/// ClickHouse.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HistorySection {
    /// Whether events go to ClickHouse. Without, they stay in the ledger until retention takes them.
    pub enabled: bool,
    /// The server and the database.
    pub server: HistoryOptions,
    /// The password of `server.user`, as a text or as `{ file = "…" }`. Empty: `server.password`, if any.
    pub password: Secret,
}

impl HistorySection {
    /// The server with the password filled in.
    pub fn resolved(&self) -> HistoryOptions {
        let mut server = self.server.clone();
        if !self.password.is_empty() {
            server.password = Some(Password::new(self.password.expose()));
        }
        server
    }
}

impl Default for HistorySection {
    fn default() -> Self {
        Self { enabled: true, server: HistoryOptions::default(), password: Secret::default() }
    }
}

/// Requests over AMQP.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AmqpOptions {
    /// Whether `forecastle.requests` is read.
    pub enabled: bool,
    /// Larger bodies are refused.
    pub max_body: Bytes,
}

impl Default for AmqpOptions {
    fn default() -> Self {
        Self { enabled: true, max_body: Bytes::mib(1) }
    }
}

/// What forecasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForecastMode {
    /// What was learnt of a unit, else what was declared.
    #[default]
    Learned,
    /// What was declared, whatever was learnt.
    DeclaredOnly,
}

/// What may be promised of kills for memory: never one is no promise that can be kept.
const OBJECTIVES: RangeInclusive<f64> = 0.0001..=0.5;

/// Forecasting and size classes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ForecastOptions {
    /// What forecasts.
    pub mode: ForecastMode,
    /// The part of attempts that may be killed for memory, from 0.0001 to 0.5. Less of it reserves more.
    pub kill_objective: f64,
    /// The same for single request types, by their names.
    pub kill_objectives: BTreeMap<String, f64>,
    /// The worker that size classes are measured against. Workers must have the same.
    pub reference_worker: ReferenceWorker,
}

impl Default for ForecastOptions {
    fn default() -> Self {
        Self {
            mode: ForecastMode::default(),
            kill_objective: ExpertOptions::default().objective,
            kill_objectives: BTreeMap::new(),
            reference_worker: ReferenceWorker::default(),
        }
    }
}

impl ForecastOptions {
    /// What is wrong with the objectives, each with its name.
    pub fn problems(&self) -> Vec<String> {
        let of = self.kill_objectives.iter().map(|(name, objective)| (format!("kill_objectives.{name}"), *objective));
        std::iter::once(("kill_objective".to_owned(), self.kill_objective))
            .chain(of)
            .filter(|(_, objective)| !OBJECTIVES.contains(objective))
            .map(|(name, objective)| {
                let (least, most) = (OBJECTIVES.start(), OBJECTIVES.end());
                format!("forecast.{name}: {objective} is not a part of attempts from {least} to {most}")
            })
            .collect()
    }
}

/// Work that does not go its way.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SweeperOptions {
    /// How long after its last load report a worker is lost; at least `1s`.
    pub grace: HumanDuration,
    /// How long a shard that is too large for every live worker waits for a larger one before it fails as infeasible.
    /// Zero waits for ever.
    pub infeasible_after: HumanDuration,
}

impl Default for SweeperOptions {
    fn default() -> Self {
        Self { grace: HumanDuration(Duration::from_secs(15)), infeasible_after: HumanDuration(Duration::from_mins(15)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_that_cannot_be_kept_is_named() {
        let mut options = ForecastOptions::default();
        assert!(options.problems().is_empty());
        options.kill_objectives.insert("archive".to_owned(), 0.0);
        options.kill_objective = f64::NAN;
        let problems = options.problems().join("\n");
        assert!(problems.contains("forecast.kill_objective: NaN is not a part of attempts from 0.0001 to 0.5"));
        assert!(problems.contains("forecast.kill_objectives.archive: 0 is"), "{problems}");
    }
}
