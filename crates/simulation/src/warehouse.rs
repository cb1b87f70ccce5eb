//! In ClickHouse's place: tables that keep the latest word under each key, as its replacing tables do, and that are
//! away at times.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use forecastle_frontend::warehouse::Warehouse;
use forecastle_history::{RunRow, ShardDecisionRow};
use forecastle_protos::ids::RunId;
use uuid::Uuid;

use crate::audit::Told;
use crate::weather::{Fault, Weather};

/// The tables.
#[derive(Debug)]
pub struct Tables {
    weather: Arc<Weather>,
    runs: Mutex<BTreeMap<Uuid, RunRow>>,
}

impl Tables {
    /// Empty tables.
    pub fn new(weather: Arc<Weather>) -> Self {
        Self { weather, runs: Mutex::default() }
    }

    /// The deduplicated runs.
    pub fn runs(&self) -> Vec<Told> {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let told = runs.values().map(|row| Told {
            run: RunId(row.run_id),
            shard: row.shard_id.clone(),
            winning: row.winning,
            ledger_seq: row.ledger_seq,
        });
        told.collect()
    }

    async fn answers(&self) -> anyhow::Result<()> {
        tokio::time::sleep(self.weather.latency()).await;
        anyhow::ensure!(!self.weather.is_warehouse_away(), "the warehouse is away");
        Ok(())
    }

    async fn answers_again(&self) -> anyhow::Result<()> {
        tokio::time::sleep(self.weather.latency()).await;
        anyhow::ensure!(!self.weather.strikes(0.1, Fault::WarehouseAnswerLost), "the warehouse's answer is lost");
        Ok(())
    }
}

#[async_trait]
impl Warehouse for Tables {
    async fn prepare(&self) -> anyhow::Result<()> {
        self.answers().await
    }

    async fn insert_runs(&self, rows: &[RunRow]) -> anyhow::Result<()> {
        self.answers().await?;
        {
            let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
            for row in rows {
                let known = runs.entry(row.run_id).or_insert_with(|| row.clone());
                if row.ledger_seq >= known.ledger_seq {
                    known.clone_from(row);
                }
            }
        }
        self.answers_again().await
    }

    async fn insert_shard_decisions(&self, _rows: &[ShardDecisionRow]) -> anyhow::Result<()> {
        self.answers().await?;
        self.answers_again().await
    }
}
