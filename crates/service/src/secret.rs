//! Texts that must not be seen: passwords, tokens, URLs with either in them.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is printed instead.
const HIDDEN: &str = "***";

/// A text that is never printed: [`fmt::Debug`] and [`Serialize`] write `***`.
///
/// Reads a text, or `{ file = "path" }` for the contents of that file without the end of its last line. In the
/// environment the file is `FORECASTLE__SECTION__KEY__FILE`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, to be handed on and not kept or printed.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True if there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn read(path: &Path) -> Result<Self, std::io::Error> {
        let text = std::fs::read_to_string(path)?;
        Ok(Self(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

thread_local! {
    static REVEALED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `serialize` with secrets written as they are, on this thread only. For the layer of defaults, which is made
/// by serialising them; what comes out must not leave this crate.
pub(crate) fn revealed<R>(serialize: impl FnOnce() -> R) -> R {
    struct Hide;
    impl Drop for Hide {
        fn drop(&mut self) {
            REVEALED.set(false);
        }
    }
    REVEALED.set(true);
    let _hide_again = Hide;
    serialize()
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "title": "secret" })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if REVEALED.get() { &self.0 } else { HIDDEN })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

/// Every wrong type has a method of its own, because serde's messages repeat the value.
struct SecretVisitor;

impl SecretVisitor {
    fn refuse<E: de::Error>() -> E {
        E::custom("a secret is a text in quotes or { file = \"path\" }")
    }
}

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or { file = \"path\" }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::new(text))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Secret, E> {
        Ok(Secret(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let mut file: Option<String> = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "file" {
                return Err(<A::Error as de::Error>::unknown_field(&key, &["file"]));
            }
            file = Some(map.next_value()?);
        }
        let file = file.ok_or_else(Self::refuse::<A::Error>)?;
        Secret::read(Path::new(&file))
            .map_err(|error| de::Error::custom(format_args!("cannot read the secret file {file}: {error}")))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
        Err(Self::refuse())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(Self::refuse())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
        Err(Self::refuse())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        Err(Self::refuse())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Secret, E> {
        Err(Self::refuse())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn is_hidden_again_after_being_revealed() {
        let secret = Secret::new("hunter2");
        assert_eq!(revealed(|| serde_json::to_string(&secret).unwrap()), "\"hunter2\"");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
    }

    #[test]
    fn reads_a_file_without_the_end_of_its_last_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "pass word \r\n").unwrap();
        let json = serde_json::json!({ "file": file.path() }).to_string();
        assert_eq!(serde_json::from_str::<Secret>(&json).unwrap().expose(), "pass word ");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = serde_json::from_str::<Secret>(r#"{"file": "/nowhere/token"}"#).unwrap_err().to_string();
        assert!(error.contains("/nowhere/token"), "{error}");
    }

    #[test]
    fn a_wrong_type_is_refused_without_repeating_it() {
        for json in ["12345678", "-12345678", "1234.5678"] {
            let error = serde_json::from_str::<Secret>(json).unwrap_err().to_string();
            assert!(error.contains("a secret is a text") && !error.contains("1234"), "{error}");
        }
        assert!(serde_json::from_str::<Secret>(r#"{"fil": "x"}"#).unwrap_err().to_string().contains("fil"));
        assert!(serde_json::from_str::<Secret>("{}").is_err());
    }
}
