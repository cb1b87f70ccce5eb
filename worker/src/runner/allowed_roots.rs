//! Where inputs may be.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Folders below which inputs may be.
///
/// A path is judged by where it leads, all links followed, and that is what a command is given. Nobody who may not read
/// everything below the roots should be able to write there: a file can still be exchanged for a link after the check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowedRoots {
    /// As configured, for judging paths that are not there; and where they lead.
    roots: Vec<(PathBuf, PathBuf)>,
}

/// A configured root cannot be one.
#[derive(Debug, thiserror::Error)]
#[error("the allowed root {} cannot be used", path.display())]
pub struct RootError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Why an input may not, or cannot, be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It was there when the request was planned.
    #[error("the input {} no longer exists", .0.display())]
    Vanished(PathBuf),
    /// It is not below an allowed root, or a link leads out of them.
    #[error("the input {} is outside the allowed roots of this worker", .0.display())]
    Outside(PathBuf),
    /// It is a folder, a device or a pipe.
    #[error("the input {} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Relative, of another scheme than `file:`, or no text.
    #[error("the input `{0}` is not an absolute path of a file")]
    NotAPath(String),
    /// The file system refuses.
    #[error("the input {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl InputError {
    /// True if it may pass: only what the file system refused for a reason of its own.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreadable { source, .. } => source.kind() != io::ErrorKind::PermissionDenied,
            Self::Vanished(_) | Self::Outside(_) | Self::NotAFile(_) | Self::NotAPath(_) => false,
        }
    }
}

impl AllowedRoots {
    /// Each must be a folder. Blocks.
    pub fn new(roots: &[PathBuf]) -> Result<Self, RootError> {
        let resolve = |path: &PathBuf| {
            let resolved = fs::canonicalize(path).and_then(|resolved| {
                if resolved.is_dir() { Ok(resolved) } else { Err(io::Error::from(io::ErrorKind::NotADirectory)) }
            });
            resolved.map(|resolved| (path.clone(), resolved)).map_err(|source| RootError { path: path.clone(), source })
        };
        Ok(Self { roots: roots.iter().map(resolve).collect::<Result<_, _>>()? })
    }

    /// Where a path leads, if that is a regular file below a root. Blocks.
    pub fn confine(&self, path: &str) -> Result<PathBuf, InputError> {
        let plain = path.strip_prefix("file://").unwrap_or(path);
        if !plain.starts_with('/') || plain.contains('\0') {
            return Err(InputError::NotAPath(path.escape_debug().take(256).collect()));
        }
        let given = Path::new(plain);
        // What is outside is not told whether it is there.
        let inside = self.roots.iter().any(|(configured, resolved)| {
            let upwards = given.components().any(|part| part == std::path::Component::ParentDir);
            !upwards && (given.starts_with(configured) || given.starts_with(resolved))
        });
        let resolved = match fs::canonicalize(given) {
            Ok(resolved) => resolved,
            Err(_) if !inside => return Err(InputError::Outside(given.to_owned())),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(InputError::Vanished(given.to_owned()));
            }
            Err(source) => return Err(InputError::Unreadable { path: given.to_owned(), source }),
        };
        if !self.roots.iter().any(|(_, root)| resolved.starts_with(root)) {
            return Err(InputError::Outside(given.to_owned()));
        }
        match fs::metadata(&resolved) {
            Ok(metadata) if metadata.is_file() => Ok(resolved),
            Ok(_) => Err(InputError::NotAFile(given.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(InputError::Vanished(given.to_owned())),
            Err(source) => Err(InputError::Unreadable { path: given.to_owned(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_path_is_judged_by_where_it_leads() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(inside.join("a"), "").unwrap();
        fs::write(outside.join("secret"), "").unwrap();
        symlink(outside.join("secret"), inside.join("leak")).unwrap();
        symlink(&outside, inside.join("away")).unwrap();
        symlink(inside.join("a"), inside.join("b")).unwrap();
        symlink(&inside, folder.path().join("alias")).unwrap();
        let roots = AllowedRoots::new(&[folder.path().join("alias")]).unwrap();
        let confine = |path: PathBuf| roots.confine(path.to_str().unwrap());
        let a = fs::canonicalize(inside.join("a")).unwrap();
        assert_eq!(confine(inside.join("a")).unwrap(), a);
        assert_eq!(confine(folder.path().join("alias/b")).unwrap(), a);
        assert_eq!(roots.confine(&format!("file://{}", a.display())).unwrap(), a);
        for path in
            ["in/leak", "in/away/secret", "in/../out/secret", "out/secret", "out/not-there", "in/../out/not-there"]
        {
            let error = confine(folder.path().join(path)).unwrap_err();
            assert!(matches!(error, InputError::Outside(_)), "{path}: {error}");
            assert!(!error.is_retryable());
        }
        let vanished = confine(inside.join("gone")).unwrap_err();
        assert!(
            matches!(&vanished, InputError::Vanished(_)) && vanished.to_string().contains("in/gone no longer exists")
        );
        assert!(matches!(confine(inside.clone()), Err(InputError::NotAFile(_))));
        for path in ["a", "", "s3://bucket/a", "/a\0b", "file://a"] {
            assert!(matches!(roots.confine(path), Err(InputError::NotAPath(_))), "{path:?}");
        }
        assert!(AllowedRoots::default().confine("/etc/passwd").is_err(), "without roots nothing is allowed");
        assert!(AllowedRoots::new(&[inside.join("a")]).unwrap_err().to_string().contains("in/a"));
    }
}
