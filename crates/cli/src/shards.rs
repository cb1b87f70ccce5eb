//! Shards: `logs` and `explain`.

use forecastle_protos::ids::ShardId;

use crate::api::Api;
use crate::explanation;
use crate::failure::Failure;
use crate::output::{Output, printable};

/// `logs`.
pub(crate) async fn logs(api: &Api, output: Output, shard: ShardId) -> Result<(), Failure> {
    let log = api.log(shard).await?;
    if output.json {
        return output.document(&log);
    }
    // A pipe gets the bytes as they are; a terminal, nothing that would steer it.
    let mut tail = if output.terminal { printable(&log.tail) } else { log.tail };
    if !tail.is_empty() && !tail.ends_with('\n') {
        tail.push('\n');
    }
    if tail.is_empty() {
        output.note(&format!("run {} wrote nothing to standard error", log.run_id));
    }
    output.text(&tail)?;
    if !log.output_uri.is_empty() {
        output.note(&printable(&format!("run {}; what it left is in {}", log.run_id, log.output_uri)));
    }
    Ok(())
}

/// `explain`.
pub(crate) async fn explain(api: &Api, output: Output, shard: ShardId) -> Result<(), Failure> {
    let explained = api.explain(shard).await?;
    if output.json {
        return output.document(&explained);
    }
    // Only for the workers' names.
    let fleet = api.fleet().await.unwrap_or_default();
    output.text(&printable(&explanation::sentences(&explained, &fleet)))
}
