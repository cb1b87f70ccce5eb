//! Messages that belong to nothing, in a form that people can look at.

use forecastle_protos::headers::Headers;

/// Headers as JSON, values as text.
pub fn describe_headers(headers: &Headers) -> String {
    let map: serde_json::Map<String, serde_json::Value> =
        headers.iter().map(|(name, value)| (name.clone(), value.to_string().into())).collect();
    serde_json::Value::Object(map).to_string()
}
