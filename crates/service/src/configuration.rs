//! Layered configuration: defaults → TOML files → environment → command line; the later wins.
//!
//! The defaults are `T::default()`, serialised, so that a section with defaults of its own in `T` keeps them when
//! only one of its keys is set. Tables merge key by key; lists and everything else are replaced. A structure that is
//! read has `#[serde(default, deny_unknown_fields)]`.
//!
//! `FORECASTLE__BROKER__URL` is `broker.url`. Texts of the environment and of the command line become what the key
//! needs (a number, a switch, a quantity); lists and tables are written as in TOML: `["a", "b"]`, `{ file = "x" }`.
//!
//! Every problem is reported at once, with its key, where it was set and, for a key that does not exist, what may
//! have been meant.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use config::{Config, ConfigError, File, FileFormat, Map, Source, Value, ValueKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::near_match::near_match;
use crate::secret;

/// What every variable of the environment that is read begins with.
const PREFIX: &str = "FORECASTLE__";

/// What lies over the defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    overrides: Vec<Override>,
}

#[derive(Debug, Clone)]
struct Override {
    /// As the user knows it: `--set` or the name of a flag.
    origin: String,
    /// `None` if the text after `--set` had no `=`.
    pair: Option<(String, String)>,
}

impl Sources {
    /// Nothing but the defaults.
    pub fn none() -> Self {
        Self::default()
    }

    /// The variables of this process that begin with `FORECASTLE__`.
    pub fn environment() -> Self {
        Self::none().variables(std::env::vars_os())
    }

    /// Adds variables; those that do not begin with `FORECASTLE__` are left out.
    #[must_use]
    pub fn variables(mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let ours = |name: &OsString| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
        self.environment.extend(variables.into_iter().filter(|(name, _)| ours(name)));
        // So that `URL__FILE` comes after `URL`, whatever the order of the environment.
        self.environment.sort();
        self
    }

    /// Adds a TOML file, over those added before. It has to exist.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push(path.into());
        self
    }

    /// Adds `section.key=value` texts, as given to `--set`.
    #[must_use]
    pub fn set(mut self, texts: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.overrides.extend(texts.into_iter().map(|text| {
            let pair = text.as_ref().split_once('=');
            let pair = pair.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
            // Without a key the text may be a secret, so it is not repeated.
            let origin = pair.as_ref().map_or_else(|| "--set".to_owned(), |(key, _)| format!("--set {key}"));
            Override { origin, pair }
        }));
        self
    }

    /// Adds the value of a flag (named as the user writes it, `--listen`) that stands for `key`, if it was given.
    #[must_use]
    pub fn flag(mut self, name: &str, key: &str, value: Option<impl fmt::Display>) -> Self {
        self.overrides.extend(
            value.map(|value| Override { origin: name.to_owned(), pair: Some((key.to_owned(), value.to_string())) }),
        );
        self
    }
}

/// What is wrong with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key as a path: `broker.url`. Empty if it is no key's fault.
    pub key: String,
    /// Where it was set: a file, `environment variable FORECASTLE__…`, `--set …`.
    pub origin: String,
    /// What is wrong and, where that can be guessed, what was meant.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{} (from {})", self.reason, self.origin)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// A file cannot be read or is no TOML.
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why, with the line where there is one.
        reason: String,
    },
    /// Keys that do not exist or have values that cannot be.
    #[error("the configuration is wrong: {}", display_all(.0))]
    Invalid(
        /// Every one of them; at least one.
        Vec<Problem>,
    ),
    /// The defaults themselves cannot be written down: a fault of the program.
    #[error("the defaults cannot be serialised")]
    Defaults(#[source] serde_json::Error),
}

fn display_all(problems: &[Problem]) -> String {
    match problems {
        [problem] => problem.to_string(),
        _ => {
            problems.iter().fold(format!("{} problems", problems.len()), |text, problem| format!("{text}\n  {problem}"))
        }
    }
}

/// Reads the configuration of a program.
///
/// # Errors
///
/// When a file cannot be read, and for every key that is unknown or has a wrong value, all at once.
pub fn load<T>(sources: Sources) -> Result<T, ConfigurationError>
where
    T: DeserializeOwned + Serialize + Default,
{
    let mut problems = Vec::new();
    let mut layers = Config::builder().add_source(defaults::<T>()?);
    for path in sources.files {
        layers = layers.add_source(read_file(path)?);
    }
    for layer in environment_layers(sources.environment, &mut problems) {
        layers = layers.add_source(layer);
    }
    for layer in override_layers(sources.overrides, &mut problems) {
        layers = layers.add_source(layer);
    }
    let merged = layers.build().map_err(|error| {
        let origin = "all of its sources together".to_owned();
        ConfigurationError::Invalid(vec![Problem { key: String::new(), origin, reason: error.to_string() }])
    })?;
    match read_all(merged.cache, &mut problems) {
        Some(configuration) if problems.is_empty() => Ok(configuration),
        _ => Err(ConfigurationError::Invalid(problems)),
    }
}

/// Reads `values`; on a problem notes it, forgets the key and reads again, until there is nothing more to find.
fn read_all<T: DeserializeOwned>(mut values: Value, problems: &mut Vec<Problem>) -> Option<T> {
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(values.clone()) {
            Ok(configuration) => return Some(configuration),
            Err(error) => error,
        };
        let path: Vec<&Segment> =
            error.path().iter().filter(|segment| !matches!(segment, Segment::Enum { .. })).collect();
        let reason = reason_of(error.inner(), &path);
        let taken = take(&mut values, &path);
        // What is missing after something wrong was taken away is no news.
        if taken.is_none() && !problems.is_empty() {
            return None;
        }
        let origin = taken.as_ref().and_then(origin_of).unwrap_or("the defaults").to_owned();
        problems.push(Problem { key: key_text(&path), origin, reason });
        taken?;
    }
}

/// One source of the `config` crate: keys (paths with dots) and their values.
#[derive(Debug, Clone)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

fn defaults<T: Serialize + Default>() -> Result<Layer, ConfigurationError> {
    let defaults = T::default();
    let json = secret::revealed(|| serde_json::to_value(&defaults)).map_err(ConfigurationError::Defaults)?;
    match from_json(json).map(|value| value.kind) {
        Some(ValueKind::Table(table)) => Ok(Layer(table)),
        // No structure, so no keys: whatever it is, serde says so when reading.
        _ => Ok(Layer(Map::new())),
    }
}

/// `None` for null: an option without a value is a key that is not there.
fn from_json(json: serde_json::Value) -> Option<Value> {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => return None,
        Json::Bool(value) => ValueKind::Boolean(value),
        Json::Number(number) => number
            .as_i64()
            .map(ValueKind::I64)
            .or_else(|| number.as_u64().map(ValueKind::U64))
            .or_else(|| number.as_f64().map(ValueKind::Float))?,
        Json::String(text) => ValueKind::String(text),
        Json::Array(values) => ValueKind::Array(values.into_iter().filter_map(from_json).collect()),
        Json::Object(entries) => ValueKind::Table(
            entries.into_iter().filter_map(|(key, value)| from_json(value).map(|value| (key, value))).collect(),
        ),
    };
    Some(Value::new(None, kind))
}

fn read_file(path: PathBuf) -> Result<Layer, ConfigurationError> {
    let text = std::fs::read_to_string(&path)
        .map_err(|error| ConfigurationError::File { path: path.clone(), reason: error.to_string() })?;
    match File::from_str(&text, FileFormat::Toml).collect() {
        Ok(values) => {
            let origin = path.display().to_string();
            Ok(Layer(values.into_iter().map(|(key, value)| (key, with_origin(value, &origin))).collect()))
        }
        Err(error) => Err(ConfigurationError::File { path, reason: error.to_string() }),
    }
}

/// A layer for each variable, in order of names.
fn environment_layers(variables: Vec<(OsString, OsString)>, problems: &mut Vec<Problem>) -> Vec<Layer> {
    let mut layers = Vec::new();
    for (name, value) in variables {
        let shown = name.to_string_lossy();
        let origin = format!("environment variable {shown}");
        let key = shown.strip_prefix(PREFIX).unwrap_or_default().to_lowercase().replace("__", ".");
        match value.to_str() {
            Some(value) => layers.extend(text_layer(&origin, &key, value, problems)),
            None => problems.push(Problem { key, origin, reason: "the value is not UTF-8".to_owned() }),
        }
    }
    layers
}

/// A layer for each override, in the order given.
fn override_layers(overrides: Vec<Override>, problems: &mut Vec<Problem>) -> Vec<Layer> {
    let mut layers = Vec::new();
    for Override { origin, pair } in overrides {
        if let Some((key, value)) = pair {
            layers.extend(text_layer(&origin, &key, &value, problems));
        } else {
            let reason = "it is not of the form section.key=value".to_owned();
            problems.push(Problem { key: String::new(), origin, reason });
        }
    }
    layers
}

fn text_layer(origin: &str, key: &str, value: &str, problems: &mut Vec<Problem>) -> Option<Layer> {
    // Stricter than the paths of the `config` crate, whose indices could ask for any amount of memory.
    let good = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if !key.split('.').all(good) {
        let reason = "it is no key: those are words of letters, digits, _ and -, joined by dots".to_owned();
        problems.push(Problem { key: key.to_owned(), origin: origin.to_owned(), reason });
        return None;
    }
    Some(Layer(Map::from_iter([(key.to_owned(), text_value(origin, value))])))
}

/// A text as it is, unless it is a list or table of TOML.
fn text_value(origin: &str, text: &str) -> Value {
    let structured = text.starts_with('[') || text.starts_with('{');
    let parsed = structured
        .then(|| File::from_str(&format!("value = {text}"), FileFormat::Toml).collect().ok())
        .flatten()
        .filter(|values| values.len() == 1)
        .and_then(|mut values| values.remove("value"));
    with_origin(parsed.unwrap_or_else(|| Value::new(None, text)), origin)
}

fn with_origin(value: Value, origin: &str) -> Value {
    let kind = match value.kind {
        ValueKind::Array(values) => {
            ValueKind::Array(values.into_iter().map(|value| with_origin(value, origin)).collect())
        }
        ValueKind::Table(table) => {
            ValueKind::Table(table.into_iter().map(|(key, value)| (key, with_origin(value, origin))).collect())
        }
        kind => kind,
    };
    Value::new(Some(&origin.to_owned()), kind)
}

/// Where a value, or the first that has an origin inside it, was set.
fn origin_of(value: &Value) -> Option<&str> {
    value.origin().or_else(|| match &value.kind {
        ValueKind::Table(table) => table.values().find_map(origin_of),
        ValueKind::Array(values) => values.iter().find_map(origin_of),
        _ => None,
    })
}

/// Takes the value at `path` out of `values`; of a list, the whole list.
fn take(values: &mut Value, path: &[&Segment]) -> Option<Value> {
    let (Segment::Map { key }, rest) = path.split_first()? else { return None };
    let ValueKind::Table(table) = &mut values.kind else { return None };
    match rest.first() {
        Some(Segment::Map { key: inner }) => match table.get_mut(key) {
            Some(child) if matches!(&child.kind, ValueKind::Table(entries) if entries.contains_key(inner)) => {
                take(child, rest)
            }
            _ => table.remove(key),
        },
        _ => table.remove(key),
    }
}

fn key_text(path: &[&Segment]) -> String {
    path.iter().fold(String::new(), |text, segment| match segment {
        Segment::Seq { index } => format!("{text}[{index}]"),
        Segment::Map { key } if text.is_empty() => key.clone(),
        Segment::Map { key } => format!("{text}.{key}"),
        Segment::Enum { .. } | Segment::Unknown => text,
    })
}

fn reason_of(error: &ConfigError, path: &[&Segment]) -> String {
    match error {
        ConfigError::At { error, .. } => reason_of(error, path),
        ConfigError::Type { unexpected, expected, .. } => format!("expected {expected}, found {unexpected}"),
        ConfigError::NotFound(_) => "it is missing".to_owned(),
        ConfigError::Message(message) => unknown_key(message, path).unwrap_or_else(|| message.clone()),
        other => other.to_string(),
    }
}

/// Rewrites serde's "unknown field `x`, expected one of `a`, `b`" with the near match.
fn unknown_key(message: &str, path: &[&Segment]) -> Option<String> {
    let (unknown, expected) = message.strip_prefix("unknown field `")?.split_once('`')?;
    // Every second piece between backticks is a name.
    let names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let section = path.split_last().map(|(_, section)| key_text(section)).unwrap_or_default();
    let full = |name: &str| if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
    Some(match near_match(unknown, names.iter().copied()) {
        Some(name) => format!("unknown key, did you mean {}?", full(name)),
        None if names.is_empty() => "unknown key: there are none here".to_owned(),
        None => format!("unknown key; there are {}", names.join(", ")),
    })
}

#[cfg(test)]
mod tests;
