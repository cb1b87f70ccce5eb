//! The service: looks, has the ledger carry out what the judge decides, and tells everyone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::Broker;
use forecastle_protos::names;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::judge::{Judge, Scene};
use crate::clock::now_ms;
use crate::control::Control;
use crate::effects::Effects;
use crate::fleet::FleetView;
use crate::ledger::{Decided, DecisionKind, Error, Ledger, Unclaimed};
use crate::metric_definitions::{DECISIONS, RUNS_LOST};

/// The name of the watermark of those shards whose losing runs' outputs are discarded.
pub const READER: &str = "outputs";

/// The most completion events that are looked at in one go.
const EVENTS: u32 = 10_000;

/// The service.
pub struct Sweeper {
    /// The truth.
    pub ledger: Arc<dyn Ledger>,
    /// Who lives.
    pub fleet: watch::Receiver<Arc<FleetView>>,
    /// Who hears of changes.
    pub effects: Effects,
    /// Tells workers to stop.
    pub control: Control,
    /// How deep queues are. While it is gone nobody can be heard, and nobody is judged.
    pub broker: Arc<dyn Broker>,
    /// How long after its last load report a worker is lost.
    pub grace: Duration,
}

impl Sweeper {
    /// Sweeps until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut judge = Judge::new(self.grace);
        let every = (self.grace / 5).clamp(Duration::from_millis(100), Duration::from_secs(5));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A frontend that has just started, was cut off or was stopped for a while has heard nobody: it waits one whole
        // grace before it judges.
        let mut listening_since = Instant::now();
        let mut looked = listening_since;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let (now, before) = (Instant::now(), looked);
            looked = now;
            if !self.broker.is_connected() || now.saturating_duration_since(before) > every + self.grace / 2 {
                listening_since = now;
                judge.begin_anew();
                continue;
            }
            let heard_everyone = now.saturating_duration_since(listening_since) >= self.grace;
            let swept = match self.sweep(&mut judge, heard_everyone, now).await {
                Ok(()) => self.discard_outputs().await,
                Err(error) => Err(error),
            };
            if let Err(error) = swept {
                tracing::error!(%error, "sweeping waits for the ledger");
            }
        }
    }

    async fn sweep(&self, judge: &mut Judge, heard_everyone: bool, began: Instant) -> Result<(), Error> {
        let claims = self.ledger.claims().await?;
        let unwanted: Vec<_> = claims.iter().filter(|c| c.run.unwanted).map(|c| c.run.run).collect();
        self.control.stop_runs(&unwanted, "superseded").await;
        if !heard_everyone {
            return Ok(());
        }
        let grace_ms = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        // What was ordered in the future was ordered by a clock that has jumped back since: it is not of late.
        let wall_ms = now_ms();
        let unclaimed = self.ledger.unclaimed(wall_ms.saturating_sub(grace_ms)..=wall_ms).await?;
        let (empty, no_event_waits) = self.depths(&unclaimed).await;
        if began.elapsed() > self.grace / 2 {
            // Stopped on the way, perhaps: reports may wait that are not read yet.
            return Ok(());
        }
        let verdict = judge.look(&Scene {
            fleet: &Arc::clone(&self.fleet.borrow()),
            claims: &claims,
            unclaimed: &unclaimed,
            empty: &empty,
            no_event_waits,
            now: Instant::now(),
            now_ms: now_ms(),
        });

        self.control.stop_runs(&verdict.overdue, "timed-out").await;
        if !verdict.unknown.is_empty() {
            let of_no_use = self.ledger.of_no_use(verdict.unknown).await?;
            self.control.stop_runs(&of_no_use, "superseded").await;
        }
        if !verdict.decisions.is_empty() {
            // Durable, together with what it means, once this answers; a crash before it decides anew.
            let decided = self.ledger.decide(verdict.decisions, now_ms()).await?;
            report(&decided);
            self.effects.spread(decided.changes).await;
        }
        Ok(())
    }

    /// Tells workers which runs won where there were several, once for each shard and again when another of its runs
    /// ends; and which runs were given up, once their shard has ended however it did. The ledger forgets that after the
    /// broker has handed it on.
    async fn discard_outputs(&self) -> Result<(), Error> {
        while !self.fleet.borrow().workers.is_empty() {
            let watermark = self.ledger.watermark(READER).await?;
            let outgrown = self.ledger.outgrown_after(watermark, EVENTS).await?;
            let Some(last) = outgrown.last else { break };
            if !self.control.discard_outputs(&outgrown.shards).await {
                break;
            }
            self.ledger.set_watermark(READER, last).await?;
        }
        while !self.fleet.borrow().workers.is_empty() {
            let left = self.ledger.left_behind(EVENTS).await?;
            let of_no_use: Vec<_> = left.iter().filter(|left| !left.won).map(|left| (left.shard, left.run)).collect();
            if left.is_empty() || !self.control.discard_runs(&of_no_use).await {
                break;
            }
            self.ledger.forget_left_behind(left.iter().map(|left| left.run).collect()).await?;
        }
        Ok(())
    }

    /// The queues of `unclaimed` that are shown empty, and whether that of events is.
    async fn depths(&self, unclaimed: &[Unclaimed]) -> (HashSet<String>, bool) {
        let queues: HashSet<&str> = unclaimed.iter().map(|attempt| attempt.queue.as_str()).collect();
        let mut empty = HashSet::new();
        for queue in queues {
            if self.is_empty(queue).await {
                empty.insert(queue.to_owned());
            }
        }
        (empty, self.is_empty(&names::completions_queue(self.ledger.id())).await)
    }

    /// Whether a queue is shown empty. One that is not there is; one that nobody can look at is not.
    async fn is_empty(&self, queue: &str) -> bool {
        match self.broker.depth(queue).await {
            Ok(depth) => depth.is_none_or(|depth| depth.ready == 0),
            Err(error) => {
                tracing::debug!(%error, queue, "the depth of a queue is not known");
                false
            }
        }
    }
}

/// Shows people what was decided.
fn report(decided: &Decided) {
    let mut workers = HashSet::new();
    let mut lost = 0u64;
    for decision in &decided.made {
        metrics::counter!(DECISIONS, "kind" => decision.kind.as_str()).increment(1);
        if decision.kind == DecisionKind::Lost {
            lost += 1;
            workers.extend(decision.worker);
            tracing::debug!(shard = %decision.shard, attempt = decision.attempt, why = decision.why, "a run is lost");
        } else {
            let (shard, attempt, kind) = (decision.shard, decision.attempt, decision.kind);
            tracing::warn!(%shard, attempt, %kind, why = decision.why, "a shard did not go its way");
        }
    }
    if lost > 0 {
        metrics::counter!(RUNS_LOST).increment(lost);
        tracing::warn!(runs = lost, workers = workers.len(), "workers are lost; their runs have ended");
    }
}
