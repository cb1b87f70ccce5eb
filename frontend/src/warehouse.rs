//! Where history is kept: the seam between the sink and ClickHouse.

use async_trait::async_trait;
use forecastle_history::{History, RunRow, ShardDecisionRow};

/// Tables of history. Inserting the same rows twice is the same as once to whoever reads them.
#[async_trait]
pub trait Warehouse: Send + Sync {
    /// Makes the tables what this program needs, if they are not yet.
    async fn prepare(&self) -> anyhow::Result<()>;

    /// Inserts runs. After an error it may have them or not.
    async fn insert_runs(&self, rows: &[RunRow]) -> anyhow::Result<()>;

    /// Inserts decisions about shards. After an error it may have them or not.
    async fn insert_shard_decisions(&self, rows: &[ShardDecisionRow]) -> anyhow::Result<()>;
}

#[async_trait]
impl Warehouse for History {
    async fn prepare(&self) -> anyhow::Result<()> {
        self.migrate().await?;
        Ok(())
    }

    async fn insert_runs(&self, rows: &[RunRow]) -> anyhow::Result<()> {
        Ok(self.writer().insert_runs(rows).await?)
    }

    async fn insert_shard_decisions(&self, rows: &[ShardDecisionRow]) -> anyhow::Result<()> {
        Ok(self.writer().insert_shard_decisions(rows).await?)
    }
}
