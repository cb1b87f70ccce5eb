//! Reading tables without stopping at the first fault.
//!
//! Serde stops at the first error; here every entry is deserialized on its own, so that one reading names all that is
//! wrong. An entry that nobody asked for is unknown.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::duration::HumanDuration;
use crate::error::{CatalogueError, Problem};
use crate::suggestion;

/// The longest duration that a catalogue may name: long enough for anyone, and safe to add to any clock.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Problems(RefCell<Vec<CatalogueError>>);

impl Problems {
    pub(crate) fn push(&self, path: impl Into<String>, problem: impl Into<Problem>) {
        self.0.borrow_mut().push(CatalogueError { path: path.into(), problem: problem.into() });
    }

    pub(crate) fn into_vec(self) -> Vec<CatalogueError> {
        self.0.into_inner()
    }
}

/// The path of an entry; its key is quoted where TOML would quote it.
pub(crate) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// A table that is being read. Each entry is taken once; [`Section::finish`] refuses what is left.
#[derive(Debug)]
pub(crate) struct Section<'p> {
    path: String,
    table: Table,
    known: Vec<&'static str>,
    problems: &'p Problems,
}

impl<'p> Section<'p> {
    /// The whole file.
    pub(crate) fn root(table: Table, problems: &'p Problems) -> Self {
        Self { path: String::new(), table, known: Vec::new(), problems }
    }

    /// The path of an entry of this table.
    pub(crate) fn at(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// This table's own path.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Where faults go.
    pub(crate) fn problems(&self) -> &'p Problems {
        self.problems
    }

    /// Notes a fault of an entry of this table.
    pub(crate) fn problem(&self, key: &str, problem: impl Into<Problem>) {
        self.problems.push(self.at(key), problem);
    }

    /// Notes a fault of an entry of this table, in words.
    pub(crate) fn invalid(&self, key: &str, why: impl Into<String>) {
        self.problem(key, Problem::Invalid(why.into()));
    }

    /// True if the entry is there and was not taken yet.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The names in a table of named tables, without taking it.
    pub(crate) fn names_in(&self, key: &str) -> BTreeSet<String> {
        let table = self.table.get(key).and_then(Value::as_table);
        table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
    }

    /// Takes an entry as it is.
    pub(crate) fn raw(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// Takes an entry; `None` if it is not there or (noted) cannot be used.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        let value = self.raw(key)?;
        self.convert(self.at(key), value)
    }

    /// Takes an entry; its absence is a fault.
    pub(crate) fn required<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        if !self.has(key) {
            self.problem(key, Problem::Missing);
        }
        self.take(key)
    }

    /// Takes a duration of at most [`LONGEST`]; faults are noted and answer `None`.
    pub(crate) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let duration: HumanDuration = self.take(key)?;
        if duration.0 > LONGEST {
            self.invalid(key, format!("{duration} is more than the longest duration, {}", HumanDuration(LONGEST)));
            return None;
        }
        Some(duration.0)
    }

    /// Like [`Section::duration`], but zero is a fault too.
    pub(crate) fn positive_duration(&mut self, key: &'static str) -> Option<Duration> {
        let duration = self.duration(key)?;
        if duration.is_zero() {
            self.invalid(key, "must be more than zero");
            return None;
        }
        Some(duration)
    }

    /// Takes a whole number that is at least 1; faults are noted and answer `None`.
    pub(crate) fn positive(&mut self, key: &'static str) -> Option<u32> {
        let number: u32 = self.take(key)?;
        if number == 0 {
            self.invalid(key, "must be at least 1");
            return None;
        }
        Some(number)
    }

    /// Takes a list, each item with its position; `None` if it is not there or is no list. Faulty items are left out.
    pub(crate) fn list<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<Vec<(usize, T)>> {
        let values: Vec<Value> = self.take(key)?;
        let at = self.at(key);
        let of = |(index, value)| Some((index, self.convert(format!("{at}[{index}]"), value)?));
        Some(values.into_iter().enumerate().filter_map(of).collect())
    }

    /// Takes a table.
    pub(crate) fn section(&mut self, key: &'static str) -> Option<Section<'p>> {
        let table: Table = self.take(key)?;
        Some(self.child(self.at(key), table))
    }

    /// Takes a list of tables, each with its position.
    pub(crate) fn sections(&mut self, key: &'static str) -> Option<Vec<Section<'p>>> {
        let at = self.at(key);
        let tables = self.list::<Table>(key)?;
        Some(tables.into_iter().map(|(index, table)| self.child(format!("{at}[{index}]"), table)).collect())
    }

    /// Takes a table of named tables.
    pub(crate) fn named_sections(&mut self, key: &'static str) -> Vec<(String, Section<'p>)> {
        let Some(mut parent) = self.section(key) else { return Vec::new() };
        let table = std::mem::take(&mut parent.table);
        let of = |(name, value): (String, Value)| {
            let path = parent.at(&name);
            let table = parent.convert(path.clone(), value)?;
            Some((name, parent.child(path, table)))
        };
        table.into_iter().filter_map(of).collect()
    }

    /// Takes whatever is left, each entry by its name.
    pub(crate) fn rest<T: DeserializeOwned>(mut self) -> Vec<(String, T)> {
        let table = std::mem::take(&mut self.table);
        let of = |(name, value): (String, Value)| {
            let value = self.convert(self.at(&name), value)?;
            Some((name, value))
        };
        table.into_iter().filter_map(of).collect()
    }

    /// Refuses the entries that were not taken.
    pub(crate) fn finish(self) {
        for key in self.table.keys() {
            let suggestion = suggestion::nearest(key, self.known.iter().copied()).map(str::to_owned);
            self.problem(key, Problem::UnknownField { suggestion, known: self.known.clone() });
        }
    }

    fn child(&self, path: String, table: Table) -> Section<'p> {
        Section { path, table, known: Vec::new(), problems: self.problems }
    }

    fn convert<T: DeserializeOwned>(&self, path: String, value: Value) -> Option<T> {
        match value.try_into() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.push(path, Problem::Invalid(error.message().to_owned()));
                None
            }
        }
    }
}
