//! The keys of a configuration as a page of the book, made from the code: the names, types and documentation of the
//! fields come from their schema, the defaults from `T::default()` as [`configuration::load`](crate::configuration)
//! sees them.

use std::fmt::Write as _;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::secret;

/// The tables of all keys of `T` in Markdown: a section of the page for each section of the configuration.
///
/// # Errors
///
/// When the defaults cannot be serialised: a fault of the program.
pub fn markdown<T: JsonSchema + Serialize + Default>() -> Result<String, serde_json::Error> {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    // Secrets are empty by default; hidden, they would look as if they were not.
    let defaults = T::default();
    let defaults = secret::revealed(|| serde_json::to_value(&defaults))?;
    let nothing = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&nothing);
    let (sections, keys): (Vec<_>, Vec<_>) = properties.iter().partition(|(_, schema)| is_table(plain(schema)));

    let mut page = String::new();
    let mut top = Rows::default();
    for (name, schema) in keys {
        top.key(name, schema, defaults.get(name));
    }
    top.write("Keys without a section", "", &mut page);
    for (name, schema) in sections {
        let mut rows = Rows::default();
        rows.entries(name, plain(schema), defaults.get(name));
        rows.write(&format!("`{name}`"), &text(schema, "description"), &mut page);
    }
    Ok(page)
}

/// Whether a key holds further keys.
fn is_table(schema: &Value) -> bool {
    schema.get("properties").is_some() || schema.get("additionalProperties").is_some_and(Value::is_object)
}

/// The schema of what an option holds if it holds something, else the schema itself.
fn plain(schema: &Value) -> &Value {
    let choices = schema.get("anyOf").and_then(Value::as_array);
    choices.and_then(|all| all.iter().find(|one| one["type"] != "null")).unwrap_or(schema)
}

/// A text of a schema as one line of a table.
fn text(schema: &Value, name: &str) -> String {
    let text = schema.get(name).and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// Rows of a table.
#[derive(Default)]
struct Rows(String);

impl Rows {
    fn write(self, title: &str, about: &str, page: &mut String) {
        if self.0.is_empty() {
            return;
        }
        let about = if about.is_empty() { String::new() } else { format!("{about}\n\n") };
        let head = "| key and variable | value | default | what it is |\n| --- | --- | --- | --- |\n";
        // Writing to a string cannot fail.
        let _ = writeln!(page, "## {title}\n\n{about}{head}{}", self.0);
    }

    /// What a table holds.
    fn entries(&mut self, path: &str, schema: &Value, defaults: Option<&Value>) {
        for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.key(&format!("{path}.{name}"), inner, defaults.and_then(|value| value.get(name)));
        }
        if let Some(inner) = schema.get("additionalProperties").filter(|inner| inner.is_object()) {
            self.key(&format!("{path}.<name>"), inner, None);
        }
    }

    /// One key, and those below it.
    fn key(&mut self, path: &str, schema: &Value, default: Option<&Value>) {
        let inner = plain(schema);
        let shown = schema.get("x-default").and_then(Value::as_str).map(str::to_owned);
        let table = is_table(inner);
        let shown = shown.unwrap_or_else(|| shown_default(default, table));
        let variable = format!("FORECASTLE__{}", path.replace('.', "__").to_uppercase());
        // An entry of a list has no variable: those are written as a whole.
        let variable = if path.contains('[') { String::new() } else { format!("<br>`{variable}`") };
        let mut about = text(schema, "description");
        for choice in inner.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
            // Writing to a string cannot fail.
            let _ = write!(about, "<br>`{}`: {}", text(choice, "const"), text(choice, "description"));
        }
        let _ = writeln!(self.0, "| `{path}`{variable} | {} | {shown} | {about} |", kind(inner));
        if table {
            self.entries(path, inner, default);
        } else if let Some(items) = inner.get("items").filter(|items| is_table(items)) {
            self.entries(&format!("{path}[]"), items, None);
        }
    }
}

fn shown_default(default: Option<&Value>, table: bool) -> String {
    match default {
        None | Some(Value::Null) => "none".to_owned(),
        // Its keys say.
        Some(_) if table => String::new(),
        Some(Value::String(text)) if text.is_empty() => "empty".to_owned(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(other) => format!("`{other}`"),
    }
}

/// What kind of value it is, for people.
fn kind(schema: &Value) -> String {
    if let Some(title) = schema.get("title").and_then(Value::as_str) {
        return title.to_owned();
    }
    if is_table(schema) {
        return "table".to_owned();
    }
    if schema.get("oneOf").is_some() || schema.get("enum").is_some() {
        return "one of these".to_owned();
    }
    let named = |schema: &Value| match &schema["type"] {
        Value::String(name) => name.clone(),
        // An option: the other one is null.
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|n| *n != "null").unwrap_or("").to_owned(),
        _ => String::new(),
    };
    match &*named(schema) {
        "boolean" => "`true` or `false`".to_owned(),
        "integer" => "whole number".to_owned(),
        "number" => "number".to_owned(),
        "array" => format!("list of {}s", kind(&schema["items"])),
        _ => "text".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::Secret;

    /// Everything.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(default)]
    struct Options {
        /// A name
        /// on two lines | with a bar.
        #[schemars(extend("x-default" = "the machine's"))]
        name: String,
        /// A section.
        section: Section,
        /// Perhaps.
        perhaps: Option<Section>,
        /// Those who may.
        people: Vec<Person>,
    }

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    #[serde(default)]
    struct Section {
        /// How many.
        count: u32,
        /// By name.
        named: BTreeMap<String, u64>,
        /// Where.
        path: Option<std::path::PathBuf>,
        /// Which.
        mode: Mode,
    }

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        /// The usual.
        #[default]
        OfOld,
        /// The other.
        New,
    }

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Person {
        /// Hush.
        password: Secret,
    }

    impl Default for Options {
        fn default() -> Self {
            let section = Section { count: 7, ..Section::default() };
            Self { name: "anybody".to_owned(), section, perhaps: None, people: Vec::new() }
        }
    }

    #[test]
    fn every_key_has_its_kind_its_default_its_variable_and_its_words() {
        let page = markdown::<Options>().unwrap();
        for row in [
            "| `name`<br>`FORECASTLE__NAME` | text | the machine's | A name on two lines \\| with a bar. |",
            "| `people`<br>`FORECASTLE__PEOPLE` | list of tables | `[]` | Those who may. |",
            "| `people[].password` | secret | none | Hush. |",
            "## `section`\n\nA section.\n",
            // The default of the whole, not the section's own.
            "| `section.count`<br>`FORECASTLE__SECTION__COUNT` | whole number | `7` | How many. |",
            "| `section.named.<name>`<br>`FORECASTLE__SECTION__NAMED__<NAME>` | whole number | none |  |",
            "| `section.path`<br>`FORECASTLE__SECTION__PATH` | text | none | Where. |",
            "| one of these | `of-old` | Which.<br>`of-old`: The usual.<br>`new`: The other. |",
            "## `perhaps`\n\nPerhaps.\n",
            "| `perhaps.count`<br>`FORECASTLE__PERHAPS__COUNT` | whole number | none | How many. |",
        ] {
            assert!(page.contains(row), "{row}\nis not in\n{page}");
        }
    }
}
