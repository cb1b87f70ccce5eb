//! The runner behind the seam of the claiming half: from an assignment to its ending.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use forecastle_catalogue::{Catalogue, TypedTask, Unit, Work};
use forecastle_protos::ids::{RunId, ShardId};
use forecastle_protos::trace;
use forecastle_protos::v1::Outcome;
use serde_json::{Map, Value};

use crate::execution::{Ending, Execution, Executor, Expected};
use crate::runner::run_spec::RunSpec;
use crate::runner::runner::Runner;

/// Runs what the catalogue says on this machine.
#[derive(Debug, Clone)]
pub struct LocalExecutor {
    catalogue: Arc<Catalogue>,
    runner: Runner,
}

impl LocalExecutor {
    /// Runs the units of this catalogue.
    pub fn new(catalogue: Arc<Catalogue>, runner: Runner) -> Self {
        Self { catalogue, runner }
    }

    fn refusal(&self, unit: &Unit) -> Option<String> {
        match &unit.work {
            Work::Task(TypedTask { name, .. }) if self.runner.tasks().get(name).is_none() => {
                Some(format!("this worker has no task `{name}`, which the unit `{}` runs", unit.name))
            }
            Work::Task(_) | Work::Command(_) => None,
        }
    }

    fn spec(&self, execution: Execution) -> Result<RunSpec, Refusal> {
        let Execution { run, assignment, limit, stop, usage, allocation } = execution;
        let (headers, shard) = (&assignment.headers, &assignment.shard);
        let unsupported = |why: String| Refusal { outcome: Outcome::Unsupported, why };
        let unit = self.catalogue.unit(&shard.unit).map_err(|error| unsupported(error.to_string()))?;
        if let Some(why) = self.refusal(unit) {
            return Err(unsupported(why));
        }
        let request_type =
            self.catalogue.request_type(&headers.request_type).map_err(|error| unsupported(error.to_string()))?;
        let wrong =
            |why: String| Refusal { outcome: Outcome::PermanentError, why: format!("the parameters are wrong: {why}") };
        let given = match &shard.parameters {
            None => Map::new(),
            Some(parameters) => match serde_json::to_value(parameters) {
                Ok(Value::Object(given)) => given,
                Ok(_) => return Err(wrong("they are no object".to_owned())),
                Err(error) => return Err(wrong(error.to_string())),
            },
        };
        let parameters = request_type
            .check_parameters(&given)
            .map_err(|errors| wrong(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
        Ok(RunSpec {
            run,
            shard: headers.shard,
            attempt: headers.attempt,
            request_type: headers.request_type.clone(),
            tenant: headers.tenant.clone(),
            unit: Arc::new(unit.clone()),
            items: shard.items.clone(),
            parameters,
            upstream: shard.upstream.clone(),
            checkpoint: shard.checkpoint.clone(),
            reservation: headers.reservation.vector.clone(),
            expected: headers.reservation.duration,
            deadline_unix_ms: headers.deadline_unix_ms,
            limit,
            traceparent: headers.traceparent.as_deref().and_then(trace::traceparent).map(str::to_owned),
            stop,
            usage,
            allocation,
        })
    }
}

/// Why an assignment is no run.
struct Refusal {
    outcome: Outcome,
    why: String,
}

#[async_trait]
impl Executor for LocalExecutor {
    fn units(&self) -> Vec<String> {
        let units = self.catalogue.units().values().filter(|unit| self.refusal(unit).is_none());
        units.map(|unit| unit.name.to_string()).collect()
    }

    fn refuses(&self, unit: &str) -> Option<String> {
        match self.catalogue.unit(unit) {
            Ok(unit) => self.refusal(unit),
            Err(error) => Some(error.to_string()),
        }
    }

    fn enforcement(&self) -> &'static str {
        self.runner.enforcer().mechanism().as_str()
    }

    async fn execute(&self, execution: Execution) -> Ending {
        match self.spec(execution) {
            Ok(spec) => self.runner.run(spec).await,
            Err(refusal) => Ending::failed(refusal.outcome, refusal.why),
        }
    }

    fn expect(&self, expected: Vec<Expected>, for_so_long: Duration) {
        let unit = |name: &str| self.catalogue.unit(name).ok().filter(|unit| self.refusal(unit).is_none());
        self.runner.expect(&expected, for_so_long, unit);
    }

    async fn close(&self) {
        self.runner.close().await;
    }

    fn sweep(&self) -> usize {
        self.runner.sweep()
    }

    fn discard_outputs(&self, shard: ShardId, winner: RunId) -> usize {
        self.runner.discard_outputs(shard, winner)
    }

    fn discard_output(&self, shard: ShardId, run: RunId) -> bool {
        self.runner.discard_output(shard, run)
    }
}
