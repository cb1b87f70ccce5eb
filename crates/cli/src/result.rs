//! `result`: the winning run of every shard, and what it wrote.

use clap::Args;
use forecastle_protos::ids::RequestId;
use forecastle_protos::v1::{self, RequestState};

use crate::api::{Api, PAGE};
use crate::failure::{Failure, state_name};
use crate::output::{Output, count, plain, printable};
use crate::quantities::bytes;

/// How many runs `submit` shows of a result.
const PREVIEW: usize = 8;

const EXAMPLES: &str = "\
Examples:
  forecastle result 01980000-0000-7000-8000-000000000000
  forecastle result 01980000-0000-7000-8000-000000000000 --files | xargs ls -l
  forecastle result 01980000-0000-7000-8000-000000000000 --json

A shard may have run more than once; the winning run is the one whose success was recorded first. Its folder is never \
changed afterwards.";

/// Show what a request produced: the winning runs and where their outputs are
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ResultOf {
    /// The request, as `submit` printed it
    #[arg(value_name = "ID")]
    id: RequestId,
    /// List the files instead, one a line
    #[arg(long)]
    files: bool,
}

impl ResultOf {
    /// Asks for every page, and prints them as one.
    pub(crate) async fn run(self, api: &Api, output: Output) -> Result<(), Failure> {
        let mut manifest = v1::ResultManifest::default();
        loop {
            let page = api.result(self.id, PAGE, &manifest.next_cursor).await?;
            let ends = page.next_cursor.is_empty() || page.shards.is_empty();
            (manifest.request_id, manifest.state) = (page.request_id, page.state);
            manifest.shards.extend(page.shards);
            manifest.next_cursor = page.next_cursor;
            if ends {
                break;
            }
        }
        // There is nothing after it.
        manifest.next_cursor.clear();
        if output.json {
            return output.document(&manifest);
        }
        if self.files {
            let lines: String = manifest.shards.iter().flat_map(files).map(|file| file + "\n").collect();
            output.text(&printable(&lines))?;
        } else if !manifest.shards.is_empty() {
            let rows = manifest.shards.iter().map(row).collect();
            output.table(&["SHARD", "STAGE", "UNIT", "ATTEMPT", "FILES", "SIZE", "OUTPUT"], rows)?;
        }
        match manifest.state() {
            RequestState::Succeeded => {}
            state => output.note(&format!("the request is {}; this is what has succeeded so far", state_name(state))),
        }
        Ok(())
    }
}

fn row(shard: &v1::ShardResult) -> Vec<comfy_table::Cell> {
    // A small result stands in the message itself.
    let output = if shard.output_uri.is_empty() { &shard.inline_json } else { &shard.output_uri };
    vec![
        plain(&shard.shard_id),
        plain(&shard.stage),
        plain(&shard.unit),
        plain(shard.attempt.to_string()),
        plain(shard.files.len().to_string()),
        plain(bytes(size(shard))),
        plain(output),
    ]
}

fn size(shard: &v1::ShardResult) -> u64 {
    shard.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
}

/// Where each file is: a path for outputs in a folder of this machine's, else a URI.
fn files(shard: &v1::ShardResult) -> impl Iterator<Item = String> {
    let base = shard.output_uri.strip_prefix("file://").unwrap_or(&shard.output_uri).trim_end_matches('/');
    shard.files.iter().map(move |file| format!("{base}/{}", file.path))
}

/// The beginning of a result, for those who have just waited for it.
pub(crate) async fn preview(api: &Api, output: Output, id: RequestId) -> Result<(), Failure> {
    let manifest = api.result(id, PREVIEW, "").await?;
    if manifest.shards.is_empty() {
        return Ok(());
    }
    output.line("")?;
    for shard in &manifest.shards {
        output.line(&preview_line(shard))?;
    }
    let more = if manifest.next_cursor.is_empty() { "" } else { "and more: " };
    output.line(&format!("{more}forecastle result {id}"))
}

fn preview_line(shard: &v1::ShardResult) -> String {
    let place = format!("{}/{}", shard.stage, shard.unit);
    let what = if shard.output_uri.is_empty() {
        shard.inline_json.clone()
    } else {
        format!("{} ({}, {})", shard.output_uri, count(shard.files.len() as u64, "file"), bytes(size(shard)))
    };
    printable(&format!("{place}  {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard() -> v1::ShardResult {
        let file = |path: &str, bytes| v1::OutputFile { path: path.to_owned(), bytes };
        v1::ShardResult {
            stage: "work".to_owned(),
            unit: "compress".to_owned(),
            output_uri: "file:///store/r/run/".to_owned(),
            files: vec![file("a.zst", 1 << 20), file("b/c.zst", 1 << 19)],
            ..Default::default()
        }
    }

    #[test]
    fn files_of_this_machine_are_paths_and_others_uris() {
        assert_eq!(files(&shard()).collect::<Vec<_>>(), ["/store/r/run/a.zst", "/store/r/run/b/c.zst"]);
        let remote = v1::ShardResult { output_uri: "s3://bucket/run".to_owned(), ..shard() };
        assert_eq!(files(&remote).next().unwrap(), "s3://bucket/run/a.zst");
    }

    #[test]
    fn a_preview_tells_where_and_how_much() {
        assert_eq!(preview_line(&shard()), "work/compress  file:///store/r/run/ (2 files, 1.5 MiB)");
        let small = v1::ShardResult { inline_json: "{\"lines\":3}".to_owned(), output_uri: String::new(), ..shard() };
        assert_eq!(preview_line(&small), "work/compress  {\"lines\":3}");
    }
}
