//! What a run reads.

use std::path::PathBuf;

use forecastle_resources::Bytes;
use serde::{Deserialize, Serialize};

/// A file of the request's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Where it is: absolute, without links, below one of the worker's allowed roots.
    pub path: PathBuf,
    /// Its name in outputs: its path below the request's input directory. Relative and without `..`; can hold `/`.
    pub name: String,
    /// Its size when the request was planned; it may have changed since.
    pub bytes: Bytes,
}

/// What a shard of an earlier stage produced: the run that won, never one that failed or came second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamResult {
    /// `<request>.<stage>.<index>`.
    pub shard_id: String,
    /// The stage's name.
    pub stage: String,
    /// The unit that ran.
    pub unit: String,
    /// The run that won. Another run of the same shard would have had another id: keep it out of results.
    pub run_id: String,
    /// The folder with its files; absolute. Nothing there is ever changed.
    pub folder: PathBuf,
    /// Its files, by path.
    pub files: Vec<OutputFile>,
    /// The result that it returned, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
}

/// A file that a run left.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OutputFile {
    /// Path relative to the run's folder; without `..`, can hold `/`.
    pub path: String,
    /// Its size.
    pub bytes: Bytes,
}
