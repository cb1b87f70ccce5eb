//! Reading and writing the kernel's files. Every error names the file.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::enforcement::error::EnforcementError;

/// The whole text of a file.
pub fn read(path: &Path) -> Result<String, EnforcementError> {
    fs::read_to_string(path).map_err(|source| EnforcementError::control("read", path, source))
}

/// The whole text of a file, or `None` if this kernel has no such file.
pub fn read_if_present(path: &Path) -> Result<Option<String>, EnforcementError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EnforcementError::control("read", path, source)),
    }
}

/// The number that is all that a file holds; `max` is `None`.
pub fn read_number(path: &Path) -> Result<Option<u64>, EnforcementError> {
    parse_number(path, &read(path)?)
}

/// Like [`read_number`], and `None` also if there is no such file.
pub fn read_number_if_present(path: &Path) -> Result<Option<u64>, EnforcementError> {
    read_if_present(path)?.map_or(Ok(None), |text| parse_number(path, &text))
}

fn parse_number(path: &Path, text: &str) -> Result<Option<u64>, EnforcementError> {
    match text.trim() {
        "max" => Ok(None),
        text => text.parse().map(Some).map_err(|_| EnforcementError::Unexpected {
            path: path.to_owned(),
            reason: format!("`{}` is not a number", text.chars().take(32).collect::<String>()),
        }),
    }
}

/// Writes in one call, as the kernel's files want it; never creates a file.
pub fn write(path: &Path, value: impl std::fmt::Display) -> Result<(), EnforcementError> {
    let value = value.to_string();
    let write = || fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes());
    write().map_err(|source| EnforcementError::control("write to", path, source))
}

/// Writes, unless this kernel has no such file. Answers whether it has.
pub fn write_if_present(path: &Path, value: impl std::fmt::Display) -> Result<bool, EnforcementError> {
    match write(path, value) {
        Ok(()) => Ok(true),
        Err(EnforcementError::Control { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The processes in a cgroup; those of its children are not in the list.
pub fn processes(cgroup: &Path) -> Result<Vec<i32>, EnforcementError> {
    let path = cgroup.join("cgroup.procs");
    Ok(read(&path)?.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| *pid > 0).collect())
}

/// The folders of the cgroups below this one, each after those that are below it.
pub fn descendants(cgroup: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![cgroup.to_owned()];
    while let Some(folder) = open.pop() {
        // A cgroup that went away meanwhile has no children.
        let children = fs::read_dir(&folder).into_iter().flatten().flatten();
        let children = children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        open.extend(children.map(|entry| entry.path()));
        if folder != cgroup {
            found.push(folder);
        }
    }
    found.reverse();
    found
}
