//! Results of earlier stages, resolved in the store.

use forecastle_protos::v1;
use forecastle_resources::Bytes;
use forecastle_task::{OutputFile, UpstreamResult};

use crate::runner::output_store::{OutputStore, StoreError};
use crate::runner::relative_name;

/// Why results of earlier stages cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Their files cannot be found.
    #[error("the result of {shard}: {source}")]
    Store {
        /// Whose.
        shard: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The small result is no JSON.
    #[error("the result of {shard} is not JSON: {reason}")]
    Inline {
        /// Whose.
        shard: String,
        /// Why.
        reason: String,
    },
}

impl UpstreamError {
    /// True if it may pass.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Store { source, .. } if source.is_retryable())
    }
}

/// Resolves results. Blocks.
pub fn resolve(store: &OutputStore, results: &[v1::ShardResult]) -> Result<Vec<UpstreamResult>, UpstreamError> {
    results.iter().map(|result| resolve_one(store, result)).collect()
}

fn resolve_one(store: &OutputStore, result: &v1::ShardResult) -> Result<UpstreamResult, UpstreamError> {
    let wrong = |source| UpstreamError::Store { shard: result.shard_id.clone(), source };
    let files = result.files.iter().map(|file| {
        relative_name::check(&file.path).map_err(StoreError::from)?;
        Ok(OutputFile { path: file.path.clone(), bytes: Bytes(file.bytes) })
    });
    let inline = Some(&result.inline_json).filter(|text| !text.is_empty()).map(|text| {
        serde_json::from_str(text)
            .map_err(|error| UpstreamError::Inline { shard: result.shard_id.clone(), reason: error.to_string() })
    });
    Ok(UpstreamResult {
        shard_id: result.shard_id.clone(),
        stage: result.stage.clone(),
        unit: result.unit.clone(),
        run_id: result.run_id.clone(),
        folder: store.resolve(&result.output_uri).map_err(wrong)?,
        files: files.collect::<Result<_, StoreError>>().map_err(wrong)?,
        result: inline.transpose()?,
    })
}
