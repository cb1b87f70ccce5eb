//! The whole catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};
use toml::Table;
use toml::de::DeTable;

use crate::command::Invoke;
use crate::error::{CatalogueErrors, SyntaxError};
use crate::name::{TypeName, UnitName};
use crate::request_type::RequestType;
use crate::section::{Problems, Section};
use crate::suggestion::{self, hint};
use crate::template::Template;
use crate::unit::{TypedTask, Unit, Work};

/// The version of the format that is read here.
pub const VERSION: i64 = 1;

/// Syntax errors beyond this many are not told: the text is something else altogether.
const MOST_SYNTAX_ERRORS: usize = 20;

/// All request types and units. Exists only if the whole file is sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalogue {
    types: BTreeMap<TypeName, RequestType>,
    units: BTreeMap<UnitName, Unit>,
    hash: String,
}

/// The catalogue has nothing of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no {kind} `{name}`{}", hint(.suggestion.as_deref()))]
pub struct UnknownName {
    /// What was looked for: `request type` or `unit`.
    pub kind: &'static str,
    /// The name, cut after 64 characters.
    pub name: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl Catalogue {
    /// Reads a catalogue from TOML, or names everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, CatalogueErrors> {
        let (_, mut errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            errors.sort_by_key(|error| error.span().map(|span| span.start));
            let errors = errors.iter().take(MOST_SYNTAX_ERRORS).map(|error| syntax_error(text, error));
            return Err(CatalogueErrors::Syntax(errors.collect()));
        }
        let table: Table = text.parse().map_err(|error| CatalogueErrors::Syntax(vec![syntax_error(text, &error)]))?;
        let problems = Problems::default();
        let catalogue = Self::read(Section::root(table, &problems));
        let entries = problems.into_vec();
        if entries.is_empty() { Ok(catalogue) } else { Err(CatalogueErrors::Invalid(entries)) }
    }

    /// Reads a catalogue from a file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, CatalogueErrors> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| CatalogueErrors::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    fn read(mut root: Section<'_>) -> Self {
        if let Some(version) = root.required::<i64>("version")
            && version != VERSION
        {
            root.invalid("version", format!("{version} is unknown; this program reads version {VERSION}"));
        }
        let unit_names: BTreeSet<String> = root.names_in("units");
        let types: BTreeMap<TypeName, RequestType> = root
            .named_sections("types")
            .into_iter()
            .map(|(name, section)| RequestType::read(&name, section, &unit_names))
            .map(|read| (read.name.clone(), read))
            .collect();
        let all: Vec<&RequestType> = types.values().collect();
        let units: BTreeMap<UnitName, Unit> = root
            .named_sections("units")
            .into_iter()
            .filter_map(|(name, section)| Unit::read(&name, section, &all))
            .map(|read| (read.name.clone(), read))
            .collect();
        root.finish();
        let hash = hash_of(&units);
        Self { types, units, hash }
    }

    /// The request types, by name.
    pub fn types(&self) -> &BTreeMap<TypeName, RequestType> {
        &self.types
    }

    /// The units, by name.
    pub fn units(&self) -> &BTreeMap<UnitName, Unit> {
        &self.units
    }

    /// The request type of that name.
    pub fn request_type(&self, name: &str) -> Result<&RequestType, UnknownName> {
        self.types.get(name).ok_or_else(|| unknown("request type", name, self.types.keys().map(TypeName::as_str)))
    }

    /// The unit of that name.
    pub fn unit(&self, name: &str) -> Result<&Unit, UnknownName> {
        self.units.get(name).ok_or_else(|| unknown("unit", name, self.units.keys().map(UnitName::as_str)))
    }

    /// SHA-256, in 64 lower-case hexadecimal digits, of what workers must agree on: what each unit runs and how its
    /// end is read.
    ///
    /// Only that. Request types, descriptions, reservations, clamps, timeouts and retry budgets are the frontend's
    /// matter (a shard carries its reservation and timeout with it), so that tuning them leaves running workers valid.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

fn unknown<'a>(kind: &'static str, name: &str, known: impl Iterator<Item = &'a str>) -> UnknownName {
    let suggestion = suggestion::nearest(name, known).map(str::to_owned);
    UnknownName { kind, name: name.chars().take(64).collect(), suggestion }
}

fn syntax_error(text: &str, error: &toml::de::Error) -> SyntaxError {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    SyntaxError {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message: error.message().to_owned(),
    }
}

/// What workers must agree on about one unit. The order of fields is part of the hash.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Canonical<'a> {
    Command {
        argv: &'a [Template],
        stdout: Option<&'a Template>,
        invoke: Invoke,
        env: &'a BTreeMap<String, String>,
        successful: &'a BTreeSet<u8>,
        retryable: &'a BTreeSet<u8>,
    },
    Task(&'a str),
    Isolated(&'a str),
}

fn hash_of(units: &BTreeMap<UnitName, Unit>) -> String {
    let canonical: BTreeMap<&str, Canonical<'_>> = units
        .iter()
        .map(|(name, unit)| {
            let canonical = match &unit.work {
                Work::Command(command) => Canonical::Command {
                    argv: &command.argv,
                    stdout: command.stdout.as_ref(),
                    invoke: command.invoke,
                    env: &command.env,
                    successful: &command.successful_exit_codes,
                    retryable: &command.retryable_exit_codes,
                },
                Work::Task(TypedTask { name, isolated: false }) => Canonical::Task(name),
                Work::Task(TypedTask { name, isolated: true }) => Canonical::Isolated(name),
            };
            (name.as_str(), canonical)
        })
        .collect();
    let json = serde_json::to_vec(&canonical).expect("JSON holds texts, numbers and maps keyed by text");
    let mut digest = Sha256::new();
    digest.update(b"forecastle-units-1\n");
    digest.update(&json);
    digest.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
