//! The store: a folder that all workers of a fleet see under the same path.
//!
//! A run writes into `<store>/<request>/<stage>.<index>/<run>/`:
//!
//! - `output/`: its results. The event's URI is this folder, its files are relative to it.
//! - `checkpoint`: where it came to, if it was stopped to run again and left word of that.
//! - `stdout.log` and `stderr.log`: what it said, where that is no result and not nothing. They stand beside the results
//!   and not among them, so that no result can have their name.
//!
//! Nothing is ever renamed into a name that runs share: the ledger knows which run won.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use forecastle_protos::ids::{RunId, ShardId};
use forecastle_protos::v1;

use crate::runner::checkpoint_file;
use crate::runner::relative_name::{self, NotRelative};

/// What went wrong with a run's folder.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A name leads out of the folder.
    #[error(transparent)]
    Name(#[from] NotRelative),
    /// Two results have one name, or a file is in the way of a folder.
    #[error("the output `{0}` is there already")]
    Taken(String),
    /// The run left something that is no result.
    #[error("the output `{name}` {why}")]
    NotAResult {
        /// What it left.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It left too much.
    #[error("the run left more than {0} files")]
    TooMany(usize),
    /// A URI names nothing in this store.
    #[error("`{uri}` is not in this worker's store {}", root.display())]
    Elsewhere {
        /// The URI.
        uri: String,
        /// The store.
        root: PathBuf,
    },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// True if it may pass, as a full disk does.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputStore {
    root: PathBuf,
}

impl OutputStore {
    /// Opens the store, and makes its folder if it is not there. Blocks.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(root).map_err(StoreError::io("create", root))?;
        let root = fs::canonicalize(root).map_err(StoreError::io("resolve", root))?;
        Ok(Self { root })
    }

    /// Makes the folder of a run, which must not be there. Blocks.
    pub fn create_run(&self, shard: ShardId, run: RunId) -> Result<RunFolder, StoreError> {
        let parent = self.folder_of(shard);
        fs::create_dir_all(&parent).map_err(StoreError::io("create", &parent))?;
        let path = parent.join(run.to_string());
        fs::create_dir(&path).map_err(StoreError::io("create", &path))?;
        let output = path.join("output");
        fs::create_dir(&output).map_err(StoreError::io("create", &output))?;
        Ok(RunFolder { path, output })
    }

    /// Removes the results and checkpoints of a shard's runs, but for those of the one that won; what runs said stays.
    /// Answers how many runs had some. Blocks.
    pub fn discard_others(&self, shard: ShardId, winner: RunId) -> Result<usize, StoreError> {
        let parent = self.folder_of(shard);
        let entries = match fs::read_dir(&parent) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(source) => return Err(StoreError::Io { action: "read", path: parent, source }),
        };
        let mut discarded = 0;
        for entry in entries {
            let path = entry.map_err(StoreError::io("read", &parent))?.path();
            let run = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<RunId>().ok());
            if run.is_some_and(|run| run != winner) {
                discarded += usize::from(discard(path)?);
            }
        }
        Ok(discarded)
    }

    /// Removes the result and the checkpoint of a run; what it said stays. True if it had some. Blocks.
    pub fn discard_run(&self, shard: ShardId, run: RunId) -> Result<bool, StoreError> {
        discard(self.folder_of(shard).join(run.to_string()))
    }

    fn folder_of(&self, shard: ShardId) -> PathBuf {
        self.root.join(shard.request.to_string()).join(format!("{}.{}", shard.stage, shard.index))
    }

    /// The folder that a URI of this store names. Blocks.
    pub fn resolve(&self, uri: &str) -> Result<PathBuf, StoreError> {
        let elsewhere = || StoreError::Elsewhere { uri: uri.chars().take(512).collect(), root: self.root.clone() };
        let path =
            uri.strip_prefix("file://").and_then(decode).filter(|path| path.is_absolute()).ok_or_else(elsewhere)?;
        let resolved = fs::canonicalize(&path).map_err(StoreError::io("find", &path))?;
        if resolved.starts_with(&self.root) { Ok(resolved) } else { Err(elsewhere()) }
    }
}

/// The folder of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
    output: PathBuf,
}

impl RunFolder {
    /// Where results go.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// A file beside the results.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// How events name it.
    pub fn uri(&self) -> String {
        encode(&self.output)
    }

    /// How events name a file beside the results.
    pub fn uri_of(&self, name: &str) -> String {
        encode(&self.beside(name))
    }

    /// Waits until the names in it are on the disk. Blocks.
    pub fn sync(&self) -> Result<(), StoreError> {
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", &self.path))
    }

    /// Makes the folders that a result of this name stands in. Blocks.
    pub fn make_parents(&self, name: &str) -> Result<PathBuf, StoreError> {
        relative_name::check(name)?;
        let mut path = self.output.clone();
        let mut parts = name.split('/').peekable();
        while let Some(part) = parts.next() {
            path.push(part);
            if parts.peek().is_none() {
                break;
            }
            match fs::create_dir(&path) {
                Ok(()) => {}
                // A link could have been left there, and would lead elsewhere.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let there = fs::symlink_metadata(&path).map_err(StoreError::io("look at", &path))?;
                    if !there.is_dir() {
                        return Err(StoreError::Taken(name.to_owned()));
                    }
                }
                Err(source) => return Err(StoreError::Io { action: "create", path, source }),
            }
        }
        Ok(path)
    }

    /// Makes a result of this name, which must not be there. Blocks.
    pub fn create_file(&self, name: &str) -> Result<File, StoreError> {
        let path = self.make_parents(name)?;
        match File::create_new(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(StoreError::Taken(name.to_owned())),
            Err(source) => Err(StoreError::Io { action: "create", path, source }),
        }
    }

    /// Makes the results read-only and lists them by name; folders without any are removed. Blocks.
    ///
    /// Links may lead to other results and are not listed; whatever else is no regular file is refused.
    pub fn seal(&self, most_files: usize, sync: bool) -> Result<Vec<v1::OutputFile>, StoreError> {
        let mut files = Vec::new();
        let mut folders = vec![self.output.clone()];
        let mut at = 0;
        while let Some(folder) = folders.get(at).cloned() {
            at += 1;
            for entry in fs::read_dir(&folder).map_err(StoreError::io("read", &folder))? {
                let path = entry.map_err(StoreError::io("read", &folder))?.path();
                let metadata = fs::symlink_metadata(&path).map_err(StoreError::io("look at", &path))?;
                let kind = metadata.file_type();
                if kind.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = self.name_of(&path)?;
                if kind.is_symlink() {
                    self.check_link(&path, name)?;
                    continue;
                }
                if !kind.is_file() {
                    return Err(StoreError::NotAResult { name, why: "is a device, a pipe or a socket" });
                }
                if files.len() == most_files {
                    return Err(StoreError::TooMany(most_files));
                }
                let mut permissions = metadata.permissions();
                permissions.set_mode(permissions.mode() & 0o7555);
                fs::set_permissions(&path, permissions).map_err(StoreError::io("make read-only", &path))?;
                if sync {
                    File::open(&path).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", &path))?;
                }
                files.push(v1::OutputFile { path: name, bytes: metadata.len() });
            }
        }
        // Folders stand after those that they are in. One that is not empty stays.
        for folder in folders.iter().skip(1).rev() {
            let _ = fs::remove_dir(folder);
        }
        if sync {
            for folder in folders.iter().filter(|folder| folder.exists()).chain([&self.path]) {
                File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", folder))?;
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// Removes the results; what the run said stays. Blocks.
    pub fn discard(&self) -> Result<(), StoreError> {
        match fs::remove_dir_all(&self.output) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Io { action: "remove", path: self.output.clone(), source: error })
            }
            _ => {
                // Nothing said, nothing left.
                let _ = fs::remove_dir(&self.path);
                Ok(())
            }
        }
    }

    fn name_of(&self, path: &Path) -> Result<String, StoreError> {
        let name = path.strip_prefix(&self.output).unwrap_or(path);
        name.to_str().map(str::to_owned).ok_or_else(|| StoreError::NotAResult {
            name: name.to_string_lossy().into_owned(),
            why: "has a name that is not UTF-8",
        })
    }

    fn check_link(&self, path: &Path, name: String) -> Result<(), StoreError> {
        let why = match fs::canonicalize(path) {
            Ok(target) if target.starts_with(&self.output) => return Ok(()),
            Ok(_) => "is a link that leads out of the run's folder",
            Err(_) => "is a link that leads nowhere",
        };
        Err(StoreError::NotAResult { name, why })
    }
}

/// A `file:` URI (RFC 8089), everything but unreserved characters and slashes escaped.
fn encode(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut uri = "file://".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

fn decode(text: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
        }
    }
    (!bytes.contains(&0)).then(|| std::ffi::OsString::from_vec(bytes).into())
}

/// Removes what is of no use of a run's folder; true if there was something.
fn discard(path: PathBuf) -> Result<bool, StoreError> {
    let folder = RunFolder { output: path.join("output"), path };
    let [part, next] = checkpoint_file::parts(&folder);
    let checkpoints = [folder.beside(checkpoint_file::NAME), part, next];
    if !folder.output.exists() && !checkpoints.iter().any(|left| left.exists()) {
        return Ok(false);
    }
    for checkpoint in checkpoints {
        // A neighbour may be at it too.
        let _ = fs::remove_file(checkpoint);
    }
    folder.discard()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_protos::ids::RequestId;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    fn run() -> (tempfile::TempDir, OutputStore, RunFolder) {
        let folder = tempfile::tempdir().unwrap();
        let store = OutputStore::open(&folder.path().join("a store")).unwrap();
        let shard = ShardId { request: RequestId::new(), stage: 1, index: 2 };
        let run = store.create_run(shard, RunId::new()).unwrap();
        (folder, store, run)
    }

    #[test]
    fn results_are_listed_sorted_and_read_only() {
        let (_folder, store, run) = run();
        for name in ["b/c", "a", "b/a b"] {
            io::Write::write_all(&mut run.create_file(name).unwrap(), name.as_bytes()).unwrap();
        }
        run.make_parents("empty/x").unwrap();
        symlink("a", run.output().join("link")).unwrap();
        let files = run.seal(3, true).unwrap();
        let listed: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.bytes)).collect();
        assert_eq!(listed, [("a", 1), ("b/a b", 5), ("b/c", 3)]);
        assert_eq!(fs::metadata(run.output().join("b/c")).unwrap().permissions().mode() & 0o222, 0);
        assert!(!run.output().join("empty").exists());
        assert_eq!(store.resolve(&run.uri()).unwrap(), run.output());
        assert!(matches!(run.seal(2, false), Err(StoreError::TooMany(2))));
    }

    #[test]
    fn nothing_is_written_outside_the_runs_folder() {
        let (folder, _, run) = run();
        for name in ["../x", "/x", "a/../../x", ""] {
            assert!(matches!(run.create_file(name), Err(StoreError::Name(_))), "{name}");
        }
        symlink(folder.path(), run.output().join("away")).unwrap();
        assert!(matches!(run.create_file("away/x"), Err(StoreError::Taken(_))), "a link is not followed");
        symlink(folder.path().join("x"), run.output().join("x")).unwrap();
        assert!(matches!(run.create_file("x"), Err(StoreError::Taken(_))));
        assert!(!folder.path().join("x").exists());
        let error = run.seal(9, false).unwrap_err();
        assert!(matches!(error, StoreError::NotAResult { .. }) && !error.is_retryable(), "{error}");
        run.discard().unwrap();
        assert!(folder.path().exists() && !run.output().exists());
    }

    #[test]
    fn of_several_runs_only_the_winners_results_stay_and_what_all_said() {
        let folder = tempfile::tempdir().unwrap();
        let store = OutputStore::open(folder.path()).unwrap();
        let shard = ShardId { request: RequestId::new(), stage: 0, index: 3 };
        let (winner, loser, crashed, failed) = (RunId::new(), RunId::new(), RunId::new(), RunId::new());
        for (run, sealed) in [(winner, true), (loser, true), (crashed, false)] {
            let made = store.create_run(shard, run).unwrap();
            io::Write::write_all(&mut made.create_file("a/b").unwrap(), b"x").unwrap();
            if sealed {
                made.seal(9, false).unwrap();
            }
        }
        let said = store.create_run(shard, failed).unwrap();
        fs::write(said.beside("stderr.log"), "why").unwrap();
        fs::write(said.beside(checkpoint_file::NAME), "half").unwrap();
        said.discard().unwrap();
        assert_eq!(store.discard_others(ShardId { index: 4, ..shard }, winner).unwrap(), 0);
        assert_eq!(store.discard_others(shard, winner).unwrap(), 3);
        assert_eq!(store.discard_others(shard, winner).unwrap(), 0);
        let here = folder.path().join(shard.request.to_string()).join("0.3");
        assert!(here.join(winner.to_string()).join("output/a/b").exists());
        assert!(!here.join(loser.to_string()).exists() && !here.join(crashed.to_string()).exists());
        let left: Vec<_> = fs::read_dir(here.join(failed.to_string())).unwrap().flatten().collect();
        assert_eq!(left.iter().map(std::fs::DirEntry::file_name).collect::<Vec<_>>(), ["stderr.log"]);
    }

    #[test]
    fn uris_of_other_places_are_refused() {
        let (folder, store, _) = run();
        let outside = encode(folder.path());
        for uri in [outside.as_str(), "s3://bucket/x", "file://relative", "file:///%zz", "file:///a%00b", ""] {
            assert!(store.resolve(uri).is_err(), "{uri}");
        }
        assert!(matches!(store.resolve(&outside), Err(StoreError::Elsewhere { .. })));
    }

    proptest! {
        #[test]
        fn paths_survive_being_a_uri(path in "(/[^/\\x00]{1,9}){1,4}") {
            let uri = encode(Path::new(&path));
            prop_assert!(uri.is_ascii() && !uri.contains(' '));
            prop_assert_eq!(decode(uri.strip_prefix("file://").unwrap()), Some(PathBuf::from(path)));
        }

        #[test]
        fn decoding_never_panics(text in "(%?[0-9a-fé]){0,9}|.*") {
            let _ = decode(&text);
        }
    }
}
