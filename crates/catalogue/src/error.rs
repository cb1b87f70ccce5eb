//! Everything that is wrong with a catalogue, all at once.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::name::NameError;
use crate::suggestion::hint;
use crate::template::TemplateError;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct CatalogueError {
    /// The entry, such as `types.archive.stages[1].units[0]`; list positions count from 0.
    pub path: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It must be there and is not.
    #[error("is required")]
    Missing,
    /// No such entry exists in this place.
    #[error("is no entry of this table{}", hint_or_known(.suggestion.as_deref(), .known))]
    UnknownField {
        /// What was probably meant.
        suggestion: Option<String>,
        /// Every entry that may stand here.
        known: Vec<&'static str>,
    },
    /// Its value cannot be used; the text says why and what can.
    #[error("{0}")]
    Invalid(String),
    /// Its name may not be one.
    #[error(transparent)]
    BadName(#[from] NameError),
    /// It names something that is not declared.
    #[error("there is no {kind} `{name}`{}", hint(.suggestion.as_deref()))]
    UnknownName {
        /// What kind of thing: a unit, a stage.
        kind: &'static str,
        /// The name.
        name: String,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// The same name again in one place.
    #[error("`{name}` is named twice")]
    Repeated {
        /// The name.
        name: String,
    },
    /// Stages that wait for each other; the first is repeated at the end.
    #[error("these stages wait for each other: {}", .0.join(" -> "))]
    Cycle(Vec<String>),
    /// It is no template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A placeholder that has no value there.
    #[error("`{{{name}}}` {why}{}", hint(.suggestion.as_deref()))]
    Placeholder {
        /// The placeholder.
        name: String,
        /// Why it has none.
        why: String,
        /// What was probably meant.
        suggestion: Option<String>,
    },
}

/// Where the text is not TOML. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct SyntaxError {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

/// Why there is no catalogue. Trying again helps only once somebody has changed the file.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueErrors {
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot read the catalogue {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The text is not TOML. Never empty.
    #[error("the catalogue is not TOML:{}", List(.0))]
    Syntax(Vec<SyntaxError>),
    /// The entries are not those of a catalogue. Never empty; in the order in which they are found.
    #[error("the catalogue has {}:{}", count(.0.len()), List(.0))]
    Invalid(Vec<CatalogueError>),
}

impl CatalogueErrors {
    /// The faulty entries; empty if the file could not be read at all.
    pub fn entries(&self) -> &[CatalogueError] {
        match self {
            Self::Invalid(entries) => entries,
            Self::Unreadable { .. } | Self::Syntax(_) => &[],
        }
    }
}

fn hint_or_known(suggestion: Option<&str>, known: &[&str]) -> String {
    if suggestion.is_some() { hint(suggestion) } else { format!("; known are {}", known.join(", ")) }
}

fn count(errors: usize) -> String {
    if errors == 1 { "an error".to_owned() } else { format!("{errors} errors") }
}

/// Each on a line of its own.
struct List<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|item| write!(f, "\n  {item}"))
    }
}
