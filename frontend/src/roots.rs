//! The folders that producers may name inputs in.

use std::io;
use std::path::{Path, PathBuf};

/// Folders, each with every link in its path resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedRoots(Vec<PathBuf>);

/// Why a path may not be read.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It is not there, or cannot be looked at.
    #[error("cannot look at {path}: {source}", path = path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not absolute, so that it would depend on where a program was started.
    #[error("{path} is not an absolute path", path = .0.display())]
    Relative(PathBuf),
    /// It leads out of every allowed folder, perhaps by a link.
    #[error("{path} is outside the folders that inputs may come from{allowed}", path = path.display())]
    Outside {
        /// The path.
        path: PathBuf,
        /// The folders, for the message.
        allowed: String,
    },
}

impl AllowedRoots {
    /// Resolves the configured folders; each must exist.
    pub fn new(folders: &[PathBuf]) -> Result<Self, RootError> {
        folders.iter().map(|folder| resolve(folder)).collect::<Result<_, _>>().map(Self)
    }

    /// The path with every link resolved, if it is inside an allowed folder.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf, RootError> {
        if !path.is_absolute() {
            return Err(RootError::Relative(path.to_owned()));
        }
        // Judged before it is looked at as well, so that the answer does not tell what exists elsewhere.
        let outside = || RootError::Outside { path: path.to_owned(), allowed: self.describe() };
        match resolve(path) {
            Ok(resolved) if self.contains(&resolved) => Ok(resolved),
            Err(error) if self.contains(path) => Err(error),
            Ok(_) | Err(_) => Err(outside()),
        }
    }

    fn contains(&self, path: &Path) -> bool {
        self.0.iter().any(|root| path.starts_with(root))
    }

    fn describe(&self) -> String {
        match &*self.0 {
            [] => " (none is configured: set input.allowed_roots)".to_owned(),
            roots => format!(" ({})", roots.iter().map(|r| r.display().to_string()).collect::<Vec<_>>().join(", ")),
        }
    }
}

fn resolve(path: &Path) -> Result<PathBuf, RootError> {
    path.canonicalize().map_err(|source| RootError::Unreadable { path: path.to_owned(), source })
}
