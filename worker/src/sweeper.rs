//! The worker's sweeper: removes what crashed workers of this machine and losing runs left, while this one runs.
//!
//! At the start the executor has swept already. From then on every living worker of a machine looks again and again, so
//! that what a dead one left (processes, cgroups, scratch) is gone without anybody starting anew. What losing runs left
//! in the store goes as the frontend says which run won: only the ledger knows. Doing either twice changes nothing.

use std::sync::Arc;
use std::time::Duration;

use forecastle_protos::ids::{RunId, ShardId};
use forecastle_protos::v1;
use metrics::counter;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::execution::Executor;
use crate::metric_definitions::SWEPT;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(20);

/// Sweeps until told to stop.
pub(crate) async fn run(executor: Arc<dyn Executor>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let executor = Arc::clone(&executor);
        match tokio::task::spawn_blocking(move || executor.sweep()).await {
            Ok(0) => {}
            Ok(folders) => {
                counter!(SWEPT, "what" => "dead-workers").increment(folders as u64);
                tracing::info!(folders, "removed what dead workers had left");
            }
            Err(error) => tracing::warn!(%error, "what dead workers left stays until the next look"),
        }
    }
}

/// Removes the outputs of runs that did not win, and of those that were given up. An entry that names no shard or run is
/// left out, and said so by answering false.
pub(crate) async fn discard_outputs(executor: Arc<dyn Executor>, discard: &v1::DiscardOutputs) -> bool {
    let read = |shard: &str, run: &str| -> Option<(ShardId, RunId)> { Some((shard.parse().ok()?, run.parse().ok()?)) };
    let won: Vec<_> = discard.shards.iter().filter_map(|won| read(&won.shard_id, &won.run_id)).collect();
    let given_up: Vec<_> = discard.runs.iter().filter_map(|run| read(&run.shard_id, &run.run_id)).collect();
    let all = won.len() == discard.shards.len() && given_up.len() == discard.runs.len();
    let discarded = tokio::task::spawn_blocking(move || {
        let lost: usize = won.into_iter().map(|(shard, winner)| executor.discard_outputs(shard, winner)).sum();
        lost + given_up.into_iter().filter(|(shard, run)| executor.discard_output(*shard, *run)).count()
    });
    match discarded.await {
        Ok(0) => {}
        Ok(runs) => {
            counter!(SWEPT, "what" => "outputs").increment(runs as u64);
            tracing::info!(runs, "removed the outputs of runs that did not win");
        }
        Err(error) => tracing::warn!(%error, "outputs of runs that did not win stay"),
    }
    all
}
