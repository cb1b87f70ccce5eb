//! Parameters: what a type declares, and checking what a producer gives against it.
//!
//! Values end up in the arguments of commands. No shell sees them, but programs read a leading `-` as an option, so a
//! text may begin with one only where its declaration says so.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Problem;
use crate::name;
use crate::section::Section;
use crate::suggestion::{self, hint};

/// The longest text value, in bytes: far below what the kernel takes as one argument (128 KiB).
pub const MAX_TEXT_BYTES: usize = 16 * 1024;

/// The largest magnitude below which every integer is exact in a double: 2^53.
const EXACT_DOUBLE: f64 = 9_007_199_254_740_992.0;

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ParameterValue {
    /// A truth value.
    Flag(bool),
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Number(f64),
    /// A text.
    Text(String),
}

/// As it stands in an argument: `19`, `0.5`, `true`, the text itself. A number that is whole prints like an integer,
/// so that an integer which travelled as a double prints the same.
impl fmt::Display for ParameterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(integer) => integer.fmt(f),
            // Adding zero turns -0 into 0.
            Self::Number(number) => (number + 0.0).fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Flag(flag) => flag.fmt(f),
        }
    }
}

impl From<ParameterValue> for Value {
    fn from(value: ParameterValue) -> Self {
        match value {
            ParameterValue::Integer(integer) => integer.into(),
            ParameterValue::Number(number) => number.into(),
            ParameterValue::Text(text) => text.into(),
            ParameterValue::Flag(flag) => flag.into(),
        }
    }
}

/// A declared parameter.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Parameter {
    /// For people.
    pub description: String,
    /// What it is when it is not given; without a default it is required.
    pub default: Option<ParameterValue>,
    /// What it may be.
    pub kind: ParameterKind,
}

/// What a parameter may be. Bounds are inclusive.
#[derive(Debug, Clone, PartialEq)]
pub enum ParameterKind {
    /// A whole number.
    Integer {
        /// The least.
        minimum: Option<i64>,
        /// The greatest.
        maximum: Option<i64>,
    },
    /// A finite number.
    Number {
        /// The least.
        minimum: Option<f64>,
        /// The greatest.
        maximum: Option<f64>,
    },
    /// A text without NUL and line breaks, of at most [`MAX_TEXT_BYTES`].
    Text {
        /// If not empty, the only texts allowed.
        choices: Vec<String>,
        /// Whether it may begin with `-`.
        allow_leading_dash: bool,
    },
    /// True or false.
    Flag,
}

/// What is wrong with a given parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct ParameterError {
    /// The field, such as `parameters.level`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl ParameterKind {
    /// `integer`, `number`, `text` or `flag`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Integer { .. } => "integer",
            Self::Number { .. } => "number",
            Self::Text { .. } => "text",
            Self::Flag => "flag",
        }
    }

    /// The value, if it is of this kind and in range; else what is wrong with it.
    fn accept(&self, value: &Value) -> Result<ParameterValue, String> {
        match self {
            Self::Integer { minimum, maximum } => {
                let integer = integer(value)?;
                in_range(integer, *minimum, *maximum).map(ParameterValue::Integer)
            }
            Self::Number { minimum, maximum } => {
                let number = value.as_f64().filter(|number| number.is_finite());
                let number = number.ok_or_else(|| format!("must be a number, not {}", describe(value)))?;
                in_range(number + 0.0, *minimum, *maximum).map(ParameterValue::Number)
            }
            Self::Text { choices, allow_leading_dash } => {
                let text = value.as_str().ok_or_else(|| format!("must be a text, not {}", describe(value)))?;
                check_text(text, *allow_leading_dash)?;
                if choices.is_empty() || choices.iter().any(|choice| choice == text) {
                    return Ok(ParameterValue::Text(text.to_owned()));
                }
                let near = suggestion::nearest(text, choices.iter().map(String::as_str));
                Err(format!("must be one of {}{}", choices.join(", "), hint(near)))
            }
            Self::Flag => value
                .as_bool()
                .map(ParameterValue::Flag)
                .ok_or_else(|| format!("must be true or false, not {}", describe(value))),
        }
    }
}

/// A whole number, also one that travelled as a double (protobuf's `Struct` has no other numbers).
fn integer(value: &Value) -> Result<i64, String> {
    if let Some(integer) = value.as_i64() {
        return Ok(integer);
    }
    let Some(number) = value.as_f64() else {
        return Err(format!("must be a whole number, not {}", describe(value)));
    };
    if number.abs() >= EXACT_DOUBLE {
        return Err(format!("{number} is too large for a whole number"));
    }
    if number.fract() != 0.0 {
        return Err(format!("must be a whole number, not {number}"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
    let integer = number as i64;
    Ok(integer)
}

fn in_range<T: PartialOrd + fmt::Display>(value: T, minimum: Option<T>, maximum: Option<T>) -> Result<T, String> {
    match (minimum, maximum) {
        (Some(minimum), _) if value < minimum => Err(format!("{value} is less than the minimum {minimum}")),
        (_, Some(maximum)) if value > maximum => Err(format!("{value} is more than the maximum {maximum}")),
        _ => Ok(value),
    }
}

fn check_text(text: &str, allow_leading_dash: bool) -> Result<(), String> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("is longer than {MAX_TEXT_BYTES} bytes"));
    }
    if text.contains(['\0', '\n', '\r']) {
        return Err("must not hold NUL or line breaks".to_owned());
    }
    if text.starts_with('-') && !allow_leading_dash {
        return Err("must not begin with `-`, which programs read as an option".to_owned());
    }
    Ok(())
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// Checks what is given against what is declared, fills in defaults, and names everything that is wrong.
pub(crate) fn check(
    declared: &BTreeMap<String, Parameter>,
    given: &Map<String, Value>,
) -> Result<BTreeMap<String, ParameterValue>, Vec<ParameterError>> {
    let mut errors = Vec::new();
    let mut wrong = |name: &str, message: String| {
        // A producer's text ends up in messages and logs: bound it.
        let name: String = name.chars().take(name::MAX_LENGTH).collect();
        errors.push(ParameterError { field: format!("parameters.{name}"), message });
    };
    let mut values = BTreeMap::new();
    for (name, value) in given {
        let Some(parameter) = declared.get(name) else {
            let near = suggestion::nearest(name, declared.keys().map(String::as_str));
            wrong(name, format!("this request type has no such parameter{}", hint(near)));
            continue;
        };
        match parameter.kind.accept(value) {
            Ok(value) => _ = values.insert(name.clone(), value),
            Err(message) => wrong(name, message),
        }
    }
    for (name, parameter) in declared.iter().filter(|(name, _)| !given.contains_key(*name)) {
        if let Some(default) = &parameter.default {
            values.insert(name.clone(), default.clone());
        } else {
            let kind = parameter.kind.as_str();
            wrong(name, format!("is required: {} {kind}", article(kind)));
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with('i') { "an" } else { "a" }
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum KindName {
    Integer,
    Number,
    Text,
    Flag,
}

impl Parameter {
    /// Reads a declaration. Faults are noted; what could be read is returned, so that the parameter's name is known.
    pub(crate) fn read(mut section: Section<'_>) -> Self {
        let kind = section.required::<KindName>("kind");
        if let Some(kind) = kind {
            refuse_foreign_entries(&section, kind);
        }
        let range = match kind {
            Some(KindName::Integer) => {
                let (minimum, maximum) = read_range(&mut section);
                Some(ParameterKind::Integer { minimum, maximum })
            }
            Some(KindName::Number) => {
                let (minimum, maximum) = read_range::<f64>(&mut section);
                for (key, bound) in [("minimum", minimum), ("maximum", maximum)] {
                    if bound.is_some_and(|bound| !bound.is_finite()) {
                        section.invalid(key, "must be finite");
                    }
                }
                Some(ParameterKind::Number { minimum, maximum })
            }
            _ => {
                _ = (section.raw("minimum"), section.raw("maximum"));
                None
            }
        };
        let allow_leading_dash = section.take("allow_leading_dash").unwrap_or(false);
        let choices = read_choices(&mut section, allow_leading_dash);
        let is_known = kind.is_some();
        let kind = match kind {
            Some(KindName::Text) => ParameterKind::Text { choices, allow_leading_dash },
            _ => range.unwrap_or(ParameterKind::Flag),
        };
        let default = section.raw("default").filter(|_| is_known).and_then(|value| {
            let accepted = json(&value).and_then(|value| kind.accept(&value));
            accepted.map_err(|why| section.invalid("default", why)).ok()
        });
        let description = section.take("description").unwrap_or_default();
        section.finish();
        Self { description, default, kind }
    }
}

fn refuse_foreign_entries(section: &Section<'_>, kind: KindName) {
    let numeric = matches!(kind, KindName::Integer | KindName::Number);
    for (key, fits, owner) in [
        ("minimum", numeric, "an integer or number"),
        ("maximum", numeric, "an integer or number"),
        ("choices", kind == KindName::Text, "a text"),
        ("allow_leading_dash", kind == KindName::Text, "a text"),
    ] {
        if !fits && section.has(key) {
            section.invalid(key, format!("only {owner} can have it"));
        }
    }
}

fn read_range<T: serde::de::DeserializeOwned + PartialOrd + fmt::Display + Copy>(
    section: &mut Section<'_>,
) -> (Option<T>, Option<T>) {
    let (minimum, maximum) = (section.take::<T>("minimum"), section.take::<T>("maximum"));
    if let (Some(least), Some(greatest)) = (minimum, maximum)
        && least > greatest
    {
        section.invalid("minimum", format!("{least} is more than the maximum {greatest}"));
    }
    (minimum, maximum)
}

fn read_choices(section: &mut Section<'_>, allow_leading_dash: bool) -> Vec<String> {
    let Some(listed) = section.list::<String>("choices") else { return Vec::new() };
    if listed.is_empty() {
        section.invalid("choices", "must not be empty; leave it out to allow any text");
    }
    let mut choices = Vec::new();
    for (index, choice) in listed {
        let key = format!("{}[{index}]", section.at("choices"));
        if let Err(why) = check_text(&choice, allow_leading_dash) {
            section.problems().push(&key, Problem::Invalid(why));
        }
        if choices.contains(&choice) {
            section.problems().push(key, Problem::Repeated { name: choice });
        } else {
            choices.push(choice);
        }
    }
    choices
}

/// A default as a producer would have given it.
fn json(value: &toml::Value) -> Result<Value, String> {
    match value {
        toml::Value::String(text) => Ok(text.as_str().into()),
        toml::Value::Integer(integer) => Ok((*integer).into()),
        toml::Value::Float(number) if number.is_finite() => Ok((*number).into()),
        toml::Value::Boolean(flag) => Ok((*flag).into()),
        toml::Value::Float(number) => Err(format!("{number} is no value for a parameter")),
        other => Err(format!("a {} is no value for a parameter", other.type_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn declared() -> BTreeMap<String, Parameter> {
        let of = |kind, default| Parameter { description: String::new(), default, kind };
        BTreeMap::from([
            (
                "level".to_owned(),
                of(ParameterKind::Integer { minimum: Some(1), maximum: Some(22) }, Some(ParameterValue::Integer(19))),
            ),
            ("ratio".to_owned(), of(ParameterKind::Number { minimum: Some(0.0), maximum: None }, None)),
            (
                "format".to_owned(),
                of(
                    ParameterKind::Text {
                        choices: vec!["xz".to_owned(), "gzip".to_owned()],
                        allow_leading_dash: false,
                    },
                    Some(ParameterValue::Text("xz".to_owned())),
                ),
            ),
            (
                "label".to_owned(),
                of(
                    ParameterKind::Text { choices: Vec::new(), allow_leading_dash: false },
                    Some(ParameterValue::Text(String::new())),
                ),
            ),
            ("fast".to_owned(), of(ParameterKind::Flag, Some(ParameterValue::Flag(false)))),
        ])
    }

    fn checked(given: &Value) -> Result<BTreeMap<String, ParameterValue>, Vec<String>> {
        check(&declared(), given.as_object().unwrap())
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults_are_filled_in_and_doubles_become_integers() {
        let values = checked(&json!({ "ratio": 1, "level": 3.0 })).unwrap();
        assert_eq!(values["level"], ParameterValue::Integer(3));
        assert_eq!(values["ratio"], ParameterValue::Number(1.0));
        assert_eq!(values["format"], ParameterValue::Text("xz".to_owned()));
        assert_eq!(values["fast"], ParameterValue::Flag(false));
        assert_eq!(values.len(), 5);
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        let errors = checked(&json!({ "levl": 3, "level": 23, "format": "gzi", "fast": "yes", "label": null }));
        assert_eq!(
            errors.unwrap_err(),
            [
                "parameters.fast: must be true or false, not a text",
                "parameters.format: must be one of xz, gzip; did you mean `gzip`?",
                "parameters.label: must be a text, not null",
                "parameters.level: 23 is more than the maximum 22",
                "parameters.levl: this request type has no such parameter; did you mean `level`?",
                "parameters.ratio: is required: a number",
            ]
        );
    }

    #[test]
    fn integers_are_whole_and_exact() {
        for (level, message) in [
            (json!(1.5), "must be a whole number, not 1.5"),
            (json!(0), "0 is less than the minimum 1"),
            (json!(1e300), "is too large for a whole number"),
            (json!(9_007_199_254_740_992.0), "is too large for a whole number"),
            (json!(u64::MAX), "is too large for a whole number"),
            (json!([1]), "must be a whole number, not a list"),
        ] {
            let errors = checked(&json!({ "ratio": 0, "level": level })).unwrap_err();
            assert!(errors.len() == 1 && errors[0].contains(message), "{errors:?}");
        }
    }

    #[test]
    fn a_text_cannot_pass_for_an_option_or_break_a_line() {
        for text in ["-rf", "a\nb", "a\rb", "a\0b", &"x".repeat(MAX_TEXT_BYTES + 1)] {
            assert_eq!(checked(&json!({ "ratio": 0, "label": text })).unwrap_err().len(), 1, "{text:?}");
        }
        let kind = ParameterKind::Text { choices: Vec::new(), allow_leading_dash: true };
        assert_eq!(kind.accept(&json!("-rf")), Ok(ParameterValue::Text("-rf".to_owned())));
    }

    #[test]
    fn values_print_as_arguments_and_an_integer_survives_as_a_double() {
        assert_eq!(ParameterValue::Integer(19).to_string(), "19");
        assert_eq!(ParameterValue::Number(19.0).to_string(), "19");
        assert_eq!(ParameterValue::Number(0.5).to_string(), "0.5");
        assert_eq!(ParameterValue::Number(-0.0).to_string(), "0");
        assert_eq!(ParameterValue::Flag(true).to_string(), "true");
    }

    proptest! {
        #[test]
        fn values_survive_json(integer in any::<i64>(), eighths in any::<i32>(), text in ".*", flag in any::<bool>()) {
            for value in [
                ParameterValue::Integer(integer),
                ParameterValue::Number(f64::from(eighths) / 8.0),
                ParameterValue::Text(text.clone()),
                ParameterValue::Flag(flag),
            ] {
                let json = serde_json::to_string(&value).unwrap();
                prop_assert_eq!(serde_json::from_str::<ParameterValue>(&json).unwrap(), value.clone());
                prop_assert_eq!(Value::from(value.clone()), serde_json::to_value(&value).unwrap());
            }
        }

        #[test]
        fn what_is_accepted_is_within_bounds_and_needs_no_quoting(level in any::<f64>(), label in ".*") {
            let given = json!({ "ratio": 0, "level": level, "label": label });
            if let Ok(values) = check(&declared(), given.as_object().unwrap()) {
                let within = matches!(values["level"], ParameterValue::Integer(level) if (1..=22).contains(&level));
                prop_assert!(within);
                prop_assert!(!label.starts_with('-') && !label.contains(['\n', '\r', '\0']));
            }
        }
    }
}
