//! The sink: events and decisions from the ledger into ClickHouse, each by its watermark.
//!
//! A batch is read after the watermark, inserted, and only then the watermark moves. When ClickHouse does not take a
//! batch the same one is tried again; a crash between insert and watermark inserts it twice, which history's tables
//! and views undo, since their keys are of what is told. ClickHouse down delays no work: events wait in the ledger.

use std::sync::Arc;
use std::time::Duration;

use forecastle_history::{RunRow, ShardDecisionRow};
use forecastle_protos::v1;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::completions::outcome_label;
use crate::crash_points;
use crate::ledger::{EventKind, Ledger, RecordedDecision, RecordedEvent};
use crate::metric_definitions::{SINK_LAG, SINK_RETRIES};
use crate::warehouse::Warehouse;

/// The names of its watermarks.
pub const EVENTS_READER: &str = "history";
/// See [`EVENTS_READER`].
pub const DECISIONS_READER: &str = "history-decisions";

/// The most rows in one insert.
const BATCH: u32 = 10_000;

/// How long events are gathered before they are inserted.
const GATHER: Duration = Duration::from_millis(500);

/// The pause after a batch was not taken, at first and at most.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The service.
pub struct Sink {
    /// Where events come from.
    pub ledger: Arc<dyn Ledger>,
    /// Where they go.
    pub warehouse: Arc<dyn Warehouse>,
    /// Wakes it.
    pub recorded: Arc<Notify>,
}

impl Sink {
    /// Carries events until told to stop; then once more, if ClickHouse answers.
    pub async fn run(self, stop: CancellationToken) {
        let (mut pause, mut migrated) = (PAUSE, false);
        loop {
            let recorded = self.recorded.notified();
            let carried = match self.migrate(&mut migrated).await {
                Ok(()) => self.carry().await,
                Err(error) => Err(error),
            };
            match carried {
                Ok(whole) => {
                    pause = PAUSE;
                    if !whole {
                        continue;
                    }
                    if stop.is_cancelled() {
                        return;
                    }
                    tokio::select! {
                        () = stop.cancelled() => {}
                        // The interval catches what was recorded between reading and waiting.
                        () = recorded => { stop.run_until_cancelled(tokio::time::sleep(GATHER)).await; }
                        () = tokio::time::sleep(Duration::from_secs(5)) => {}
                    }
                }
                Err(error) => {
                    metrics::counter!(SINK_RETRIES).increment(1);
                    tracing::warn!(error = format!("{error:#}"), retry_in = ?pause, "ClickHouse did not take a batch; it waits in the ledger");
                    if stop.is_cancelled() {
                        return;
                    }
                    // Told to stop while it waits, it tries once more.
                    stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Once, before the first batch: ClickHouse may have been down at start.
    async fn migrate(&self, migrated: &mut bool) -> anyhow::Result<()> {
        if !*migrated {
            self.warehouse.prepare().await?;
            *migrated = true;
        }
        Ok(())
    }

    /// Carries a batch of each log; true if that was all there is.
    async fn carry(&self) -> anyhow::Result<bool> {
        let decisions = self.carry_decisions().await?;
        let events = self.carry_events().await?;
        Ok(decisions.max(events) < BATCH as usize)
    }

    async fn carry_events(&self) -> anyhow::Result<usize> {
        let watermark = self.ledger.watermark(EVENTS_READER).await?;
        let events = self.ledger.events_after(watermark, BATCH).await?;
        metrics::gauge!(SINK_LAG).set(events.len() as f64);
        let Some(last) = events.last().map(|event| event.seq) else { return Ok(0) };
        let rows: Vec<RunRow> = events.iter().filter_map(row).collect();
        self.warehouse.insert_runs(&rows).await?;
        crash_points::SINK_AFTER_INSERT.hit();
        self.ledger.set_watermark(EVENTS_READER, last).await?;
        metrics::gauge!(SINK_LAG).set(0.0);
        Ok(events.len())
    }

    async fn carry_decisions(&self) -> anyhow::Result<usize> {
        let watermark = self.ledger.watermark(DECISIONS_READER).await?;
        let decisions = self.ledger.decisions_after(watermark, BATCH).await?;
        let Some(last) = decisions.last().map(|decision| decision.seq) else { return Ok(0) };
        let rows: Vec<ShardDecisionRow> = decisions.iter().map(decision_row).collect();
        self.warehouse.insert_shard_decisions(&rows).await?;
        self.ledger.set_watermark(DECISIONS_READER, last).await?;
        Ok(decisions.len())
    }
}

/// The latest time that history can hold: the end of the year 2299, in milliseconds since 1970.
const LAST_TIME: u64 = 10_413_791_999_999;

/// Milliseconds since 1970 as history takes them.
fn time(ms: u64) -> i64 {
    i64::try_from(ms.min(LAST_TIME)).unwrap_or(0)
}

/// A decision as a row of history.
fn decision_row(recorded: &RecordedDecision) -> ShardDecisionRow {
    let decision = &recorded.decision;
    ShardDecisionRow {
        request_id: decision.shard.request.0,
        shard_id: decision.shard.to_string(),
        attempt: decision.attempt,
        run_id: decision.run.map(|run| run.0).unwrap_or_default(),
        worker_id: decision.worker.map(|worker| worker.0).unwrap_or_default(),
        tenant: recorded.tenant.clone(),
        request_type: recorded.request_type.clone(),
        unit: recorded.unit.clone(),
        kind: decision.kind.to_string(),
        at: time(decision.at_ms),
        why: decision.why.clone(),
        evidence: decision.evidence.clone(),
    }
}

/// An event as a row of history. `None` for what names no request type or unit: a worker that cannot read a message
/// has neither, and there is nothing to learn from it.
fn row(recorded: &RecordedEvent) -> Option<RunRow> {
    let event = &recorded.event;
    let EventKind::Completed(completed) = &event.kind else { return None };
    if completed.request_type.is_empty() || completed.unit.is_empty() {
        return None;
    }
    let reservation = completed.reservation.clone().unwrap_or_default();
    let vector = reservation.vector.unwrap_or_default();
    let usage = completed.usage.clone().unwrap_or_default();
    let forecast = completed.forecast.clone().unwrap_or_default();
    let changes = &completed.adjustments;
    let changed = |of: fn(&v1::ResourceVector) -> u64| {
        changes.iter().map(|change| change.to.as_ref().map_or(0, of)).collect::<Vec<_>>()
    };
    let need = |of: fn(&v1::NeedQuantile) -> f64| forecast.need.iter().map(of).collect::<Vec<_>>();
    Some(RunRow {
        run_id: event.run.0,
        request_id: event.shard.request.0,
        shard_id: event.shard.to_string(),
        attempt: event.attempt,
        worker_id: event.worker.0,
        tenant: completed.tenant.clone(),
        request_type: completed.request_type.clone(),
        stage: completed.stage.clone(),
        unit: completed.unit.clone(),
        priority: completed.priority.clone(),
        size_class: completed.size_class.clone(),
        outcome: outcome_label(completed.outcome()).to_owned(),
        error: completed.error.clone(),
        exit_code: completed.exit_code,
        signal: completed.signal,
        reserved_cpu_millis: vector.cpu_millis.into(),
        reserved_memory_bytes: vector.memory_bytes,
        reserved_io_bytes_per_second: vector.io_bytes_per_second,
        reserved_scratch_bytes: vector.scratch_bytes,
        reserved_duration_ms: reservation.duration_ms,
        used_memory_bytes: usage.memory_bytes,
        used_cpu_ms: usage.cpu_ms,
        io_read_bytes: usage.io_read_bytes,
        io_write_bytes: usage.io_write_bytes,
        duration_ms: usage.duration_ms,
        usage_source: usage.source,
        started_at: time(if completed.started_unix_ms == 0 { event.at_ms } else { completed.started_unix_ms }),
        ended_at: time(if completed.ended_unix_ms == 0 { event.at_ms } else { completed.ended_unix_ms }),
        waited_ms: completed.waited_ms,
        node_class: completed.node_class.clone(),
        input_bytes: completed.input_bytes,
        input_items: completed.input_items,
        need_probability: need(|q| q.probability),
        need_cpu_millis: need(|q| q.cpu_millis),
        need_memory_bytes: need(|q| q.memory_bytes),
        need_io_bytes_per_second: need(|q| q.io_bytes_per_second),
        need_duration_ms: need(|q| q.duration_ms),
        forecast_source: forecast.source,
        model_version: forecast.model_version,
        quantile: forecast.quantile,
        memory_ladder_bytes: forecast.memory_ladder_bytes,
        adjusted_at: changes.iter().map(|change| time(change.at_unix_ms)).collect(),
        adjusted_change: changes.iter().map(|change| change.change.clone()).collect(),
        adjusted_reason: changes.iter().map(|change| change.reason.clone()).collect(),
        adjusted_cpu_millis: changed(|vector| vector.cpu_millis.into()),
        adjusted_memory_bytes: changed(|vector| vector.memory_bytes),
        adjusted_io_bytes_per_second: changed(|vector| vector.io_bytes_per_second),
        further_adjustments: completed.further_adjustments,
        held_memory_byte_seconds: completed.held_memory_byte_seconds,
        held_core_seconds: completed.held_core_seconds,
        winning: recorded.winning,
        ledger_seq: u64::try_from(recorded.seq).unwrap_or(0),
    })
}
