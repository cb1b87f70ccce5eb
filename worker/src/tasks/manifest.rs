//! A list of everything that the stages before have produced.
//!
//! `MANIFEST` has one line for each file, `SHA-256  size  stage/unit/path`, sorted by path: no times, no ids of runs or
//! workers, no absolute paths. So the same input gives the same manifest, whichever runs won. A path with a backslash,
//! a line feed or a carriage return is written as `sha256sum` does it: these as `\\`, `\n` and `\r`, and a backslash
//! before the line.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use forecastle_task::{Context, Task, TaskError, async_trait};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

/// The file that it writes.
const FILE: &str = "MANIFEST";

/// Read at once.
const CHUNK: usize = 128 << 10;

/// `forecastle.manifest`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manifest;

/// Whatever parameters there are, they are ignored.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Ignored {}

/// What the manifest sums up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Files listed.
    pub files: u64,
    /// Their sizes, summed.
    pub bytes: u64,
    /// SHA-256 of the manifest, in hexadecimal.
    pub sha256: String,
}

/// A file to be listed.
struct Listed {
    name: String,
    path: PathBuf,
    bytes: u64,
}

#[async_trait]
impl Task for Manifest {
    const NAME: &'static str = "forecastle.manifest";
    type Parameters = Ignored;
    type Output = Summary;

    async fn run(&self, _: Ignored, context: &Context) -> Result<Summary, TaskError> {
        let mut listed = Vec::new();
        for result in context.upstream() {
            for file in &result.files {
                let name = format!("{}/{}/{}", result.stage, result.unit, file.path);
                listed.push(Listed { name, path: result.folder.join(&file.path), bytes: file.bytes.get() });
            }
        }
        let (output, stop) = (context.output().join(FILE), context.cancellation().clone());
        let progress = context.progress().clone();
        context.blocking(move || write(listed, &output, &stop, |part| progress.report(part))).await?
    }
}

fn write(
    listed: Vec<Listed>,
    output: &Path,
    stop: &CancellationToken,
    progress: impl Fn(f64),
) -> Result<Summary, TaskError> {
    let all: u64 = listed.iter().fold(0, |sum, file| sum.saturating_add(file.bytes));
    let (files, mut bytes) = (listed.len() as u64, 0u64);
    let mut lines = Vec::with_capacity(listed.len());
    for file in listed {
        let (sum, size) = sum(&file.path, stop)?;
        if size != file.bytes {
            let (path, told) = (file.path.display(), file.bytes);
            return Err(TaskError::permanent(format!("{path} has {size} bytes and had {told} when its run ended")));
        }
        bytes = bytes.saturating_add(size);
        progress(bytes as f64 / all.max(1) as f64);
        lines.push((file.name, sum, size));
    }
    // By path first. Equal paths (of shards of one unit) are told apart by what they hold.
    lines.sort();
    let mut text = String::new();
    for (name, sum, size) in lines {
        let (mark, name) = escape(&name);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{mark}{sum}  {size}  {name}");
    }
    std::fs::write(output, &text)?;
    Ok(Summary { files, bytes, sha256: hexadecimal(&Sha256::digest(text.as_bytes())) })
}

fn escape(name: &str) -> (&'static str, String) {
    if name.contains(['\\', '\n', '\r']) {
        ("\\", name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r"))
    } else {
        ("", name.to_owned())
    }
}

/// SHA-256 and size of a file.
fn sum(path: &Path, stop: &CancellationToken) -> Result<(String, u64), TaskError> {
    let failed = |error: io::Error| {
        let why = format!("cannot read {}: {error}", path.display());
        if error.kind() == io::ErrorKind::NotFound { TaskError::permanent(why) } else { TaskError::retryable(why) }
    };
    let mut file = File::open(path).map_err(failed)?;
    let (mut digest, mut size) = (Sha256::new(), 0u64);
    let mut chunk = vec![0; CHUNK];
    loop {
        if stop.is_cancelled() {
            return Err(TaskError::retryable("stopped"));
        }
        match file.read(&mut chunk) {
            Ok(0) => return Ok((hexadecimal(&digest.finalize()), size)),
            Ok(read) => {
                digest.update(&chunk[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_resources::Bytes;
    use forecastle_task::{ContextParts, OutputFile, UpstreamResult};

    fn result(folder: &Path, run: &str, files: &[(&str, &str)]) -> UpstreamResult {
        let folder = folder.join(run);
        let written = files.iter().map(|(path, text)| {
            std::fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
            std::fs::write(folder.join(path), text).unwrap();
            OutputFile { path: (*path).to_owned(), bytes: Bytes(text.len() as u64) }
        });
        let files = written.collect();
        UpstreamResult {
            shard_id: "s".to_owned(),
            stage: "work".to_owned(),
            unit: "compress".to_owned(),
            run_id: run.to_owned(),
            folder,
            files,
            result: None,
        }
    }

    async fn manifest(upstream: Vec<UpstreamResult>) -> Result<(String, Summary), TaskError> {
        let output = tempfile::tempdir().unwrap();
        let parts = ContextParts { upstream, output: output.path().to_owned(), ..ContextParts::default() };
        let summary = Manifest.run(Ignored {}, &Context::new(parts)).await?;
        Ok((std::fs::read_to_string(output.path().join(FILE)).unwrap(), summary))
    }

    #[tokio::test]
    async fn whichever_runs_won_the_manifest_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = ([("b/x.xz", "xx"), ("a\nb", "")], [("install.log", "abc")]);
        let first = manifest(vec![result(folder.path(), "r1", &a), result(folder.path(), "r2", &b)]).await.unwrap();
        let second = manifest(vec![result(folder.path(), "r9", &b), result(folder.path(), "r3", &a)]).await.unwrap();
        assert_eq!(first, second);
        let expected = "\\e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  0  work/compress/a\\nb\n\
            5dde896887f6754c9b15bfe3a441ae4806df2fde94001311e08bf110622e0bbe  2  work/compress/b/x.xz\n\
            ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  3  work/compress/install.log\n";
        assert_eq!(first.0, expected);
        assert_eq!((first.1.files, first.1.bytes), (3, 5));
        assert_eq!(first.1.sha256, hexadecimal(&Sha256::digest(expected.as_bytes())));
    }

    #[tokio::test]
    async fn a_file_that_is_gone_or_was_changed_fails_for_good_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let upstream = result(folder.path(), "r1", &[("a", "abc")]);
        std::fs::write(upstream.folder.join("a"), "abcd").unwrap();
        let changed = manifest(vec![upstream.clone()]).await.unwrap_err();
        assert!(!changed.is_retryable() && changed.to_string().contains("has 4 bytes and had 3"), "{changed}");
        std::fs::remove_file(upstream.folder.join("a")).unwrap();
        let gone = manifest(vec![upstream]).await.unwrap_err();
        assert!(!gone.is_retryable() && gone.to_string().contains("r1/a"), "{gone}");
    }

    #[tokio::test]
    async fn a_manifest_of_nothing_is_empty() {
        let (text, summary) = manifest(Vec::new()).await.unwrap();
        assert_eq!((text.as_str(), summary.files, summary.bytes), ("", 0, 0));
    }
}
