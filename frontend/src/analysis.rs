//! Looking at a request's input: which items there are, how large each is and whether it looks like text.
//!
//! Blocking; runs on a thread for blocking work. Links are not followed, and what is neither a file nor a folder is
//! left out.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use forecastle_catalogue::{InputKind, RequestType};
use forecastle_planning::Item;
use forecastle_protos::v1;

use crate::roots::{AllowedRoots, RootError};

/// How much of a file is read to tell text from the rest.
const SNIFF_BYTES: usize = 4096;

/// Why an input cannot be analysed.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// Outside the allowed folders, or gone.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A folder or file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not what the request type wants.
    #[error("{path} is not a {wanted}", path = path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// `directory` or `file`.
        wanted: &'static str,
    },
    /// A name that is not UTF-8 cannot travel in a message.
    #[error("the name of {path} is not valid UTF-8", path = .0.display())]
    NotUtf8(PathBuf),
    /// More items than the type allows.
    #[error("the input has more than {0} items, the most that its request type allows")]
    TooMany(u32),
}

impl AnalysisError {
    /// The stable name of this error.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Root(RootError::Outside { .. } | RootError::Relative(_)) => "input-not-allowed",
            Self::Root(RootError::Unreadable { .. }) | Self::Unreadable { .. } => "input-unreadable",
            Self::WrongKind { .. } | Self::NotUtf8(_) => "invalid-input",
            Self::TooMany(_) => "input-too-large",
        }
    }
}

/// The items of an input that is of the kind that its request type wants.
pub fn analyse(
    input: Option<&v1::Input>,
    request_type: &RequestType,
    roots: &AllowedRoots,
) -> Result<Vec<Item>, AnalysisError> {
    use v1::input::Kind;
    let mut items = Items { found: Vec::new(), most: request_type.max_items };
    match (request_type.input, input.and_then(|input| input.kind.as_ref())) {
        (InputKind::Directory, Some(Kind::Directory(directory))) => {
            let root = roots.resolve(Path::new(directory))?;
            if !root.is_dir() {
                return Err(AnalysisError::WrongKind { path: root, wanted: "directory" });
            }
            items.walk(&root)?;
        }
        (InputKind::Items, Some(Kind::Items(list))) => {
            let mut listed = BTreeSet::new();
            for path in &list.paths {
                // What a path leads to is the item, however the path is written, and it is one even if it is listed twice.
                let resolved = roots.resolve(Path::new(path))?;
                if !listed.insert(resolved.clone()) {
                    continue;
                }
                let metadata = metadata(&resolved)?;
                if !metadata.is_file() {
                    return Err(AnalysisError::WrongKind { path: resolved, wanted: "file" });
                }
                let name = resolved.to_str().map(|path| path.trim_start_matches('/').to_owned());
                let name = name.ok_or_else(|| AnalysisError::NotUtf8(resolved.clone()))?;
                items.push(resolved, name, metadata.len())?;
            }
        }
        // Admission has refused every other combination, except that the catalogue may have changed since: then
        // there is nothing to list, and the planner says so.
        _ => {}
    }
    Ok(items.found)
}

struct Items {
    found: Vec<Item>,
    most: u32,
}

impl Items {
    fn walk(&mut self, root: &Path) -> Result<(), AnalysisError> {
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            let unreadable = |source| AnalysisError::Unreadable { path: folder.clone(), source };
            for entry in fs::read_dir(&folder).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let path = entry.path();
                // `file_type` and `metadata` of an entry do not follow links.
                let kind = entry.file_type().map_err(unreadable)?;
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    let bytes = metadata(&path)?.len();
                    let below = path.strip_prefix(root).unwrap_or(&path).to_owned();
                    let name = below.into_os_string().into_string().map_err(|n| AnalysisError::NotUtf8(n.into()))?;
                    self.push(path, name, bytes)?;
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, path: PathBuf, name: String, bytes: u64) -> Result<(), AnalysisError> {
        if self.found.len() >= self.most as usize {
            return Err(AnalysisError::TooMany(self.most));
        }
        let text = looks_like_text(&path)?;
        let path = path.into_os_string().into_string().map_err(|path| AnalysisError::NotUtf8(path.into()))?;
        self.found.push(Item { path, name, bytes, text });
        Ok(())
    }
}

fn metadata(path: &Path) -> Result<fs::Metadata, AnalysisError> {
    fs::symlink_metadata(path).map_err(|source| AnalysisError::Unreadable { path: path.to_owned(), source })
}

/// True if the beginning is UTF-8 without NUL; an empty file is text.
fn looks_like_text(path: &Path) -> Result<bool, AnalysisError> {
    let mut beginning = Vec::with_capacity(SNIFF_BYTES);
    File::open(path)
        .and_then(|file| file.take(SNIFF_BYTES as u64).read_to_end(&mut beginning))
        .map_err(|source| AnalysisError::Unreadable { path: path.to_owned(), source })?;
    Ok(is_text(&beginning, beginning.len() == SNIFF_BYTES))
}

/// `cut` says that the beginning may end within a character.
fn is_text(beginning: &[u8], cut: bool) -> bool {
    !beginning.contains(&0)
        && match std::str::from_utf8(beginning) {
            Ok(_) => true,
            Err(error) => cut && error.error_len().is_none(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_from_the_rest_even_when_a_character_is_cut() {
        assert!(is_text(b"", false));
        assert!(is_text("größe".as_bytes(), false));
        assert!(!is_text(b"a\0b", false));
        assert!(!is_text(&[0xff, 0xfe], true));
        assert!(is_text(&[b'a', 0xc3], true));
        assert!(!is_text(&[b'a', 0xc3], false));
    }

    #[test]
    fn links_are_not_followed_out_of_the_input() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("input");
        fs::create_dir_all(input.join("sub")).unwrap();
        fs::write(folder.path().join("secret"), "x").unwrap();
        fs::write(input.join("sub/a"), "abc").unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret"), input.join("link")).unwrap();
        std::os::unix::fs::symlink(folder.path(), input.join("up")).unwrap();
        let mut items = Items { found: Vec::new(), most: 10 };
        items.walk(&input).unwrap();
        let names: Vec<_> = items.found.iter().map(|i| (i.name.as_str(), i.bytes, i.text)).collect();
        assert_eq!(names, [("sub/a", 3, true)]);

        let roots = AllowedRoots::new(std::slice::from_ref(&input)).unwrap();
        assert!(matches!(roots.resolve(&input.join("link")), Err(RootError::Outside { .. })));
        assert!(matches!(roots.resolve(Path::new("/etc/passwd")), Err(RootError::Outside { .. })));
        assert!(matches!(roots.resolve(&input.join("gone")), Err(RootError::Unreadable { .. })));
        assert!(roots.resolve(&input.join("sub/a")).is_ok());
    }
}
