//! How long rows live: a TTL on each table, from the options rather than from a migration, so that it can change.

use crate::connection::Connection;
use crate::{Error, HistoryOptions};

/// Sets the TTL of every table whose rows age, where it is not what the options say.
pub(crate) async fn apply(connection: &Connection, options: &HistoryOptions) -> Result<(), Error> {
    for (table, days) in [
        ("runs", options.retention_days),
        ("plans", options.retention_days),
        ("decisions", options.retention_days),
        ("shard_decisions", options.retention_days),
        ("evaluations", options.retention_days),
        ("load_samples", options.load_sample_retention_days),
    ] {
        let query = connection
            .client()
            .query("SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = ?")
            .bind(table);
        let engine: String = connection.fetch_one("read the retention", query).await?;
        if let Some(change) = change(table, days, &engine) {
            connection.execute(&format!("set the retention of {table}"), &change).await?;
            tracing::info!(table, days, "history retention set");
        }
    }
    Ok(())
}

/// The statement that makes `days` the retention of a table with the definition `engine`, if it is another.
fn change(table: &str, days: u32, engine: &str) -> Option<String> {
    let has_ttl = engine.contains(" TTL ");
    if days == 0 {
        return has_ttl.then(|| format!("ALTER TABLE {table} REMOVE TTL"));
    }
    // As ClickHouse prints it.
    let ttl = format!("recorded_at + toIntervalDay({days})");
    (!engine.contains(&format!(" TTL {ttl}"))).then(|| format!("ALTER TABLE {table} MODIFY TTL {ttl}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_only_what_differs() {
        let without = "ReplacingMergeTree ORDER BY at SETTINGS index_granularity = 8192";
        let with = "ReplacingMergeTree ORDER BY at TTL recorded_at + toIntervalDay(30) SETTINGS x = 1";
        assert_eq!(change("runs", 0, without), None);
        assert_eq!(change("runs", 30, with), None);
        assert_eq!(change("runs", 0, with).as_deref(), Some("ALTER TABLE runs REMOVE TTL"));
        let expected = "ALTER TABLE runs MODIFY TTL recorded_at + toIntervalDay(3)";
        assert_eq!(change("runs", 3, with).as_deref(), Some(expected));
        assert_eq!(change("runs", 3, without).as_deref(), Some(expected));
    }
}
