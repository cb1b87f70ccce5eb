//! Reading JSON, the same over HTTP and AMQP: what is wrong is named with its path, line and column.

use forecastle_protos::v1::ErrorDetail;
use serde::de::DeserializeOwned;

use crate::intake::detail;

/// Parses one JSON value, and nothing after it.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ErrorDetail> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = match error.path().to_string() {
            root if root == "." => String::new(),
            path => path,
        };
        // It ends with the line and the column.
        let message = error.inner().to_string();
        if let Some(name) = unknown_field(&message) {
            return detail("unknown-field", &join(&path, name), message.clone());
        }
        let hint =
            if message.starts_with(INEXACT) { "; a whole number beyond 2^53 must be sent as a text" } else { "" };
        detail("malformed-body", &path, format!("the body cannot be read: {message}{hint}"))
    })?;
    deserializer.end().map_err(|error| detail("malformed-body", "", format!("after the body: {error}")))?;
    Ok(parsed)
}

/// How the message about a number begins that protobuf's `Value`, a double, cannot hold exactly.
const INEXACT: &str = "out of range integral type conversion";

/// The name in serde's message about a field that does not exist.
fn unknown_field(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field `")?.split_once('`').map(|(name, _)| name)
}

/// The path ends with the unknown field itself or with what holds it, as the deserialiser got to know it.
fn join(path: &str, name: &str) -> String {
    match path.rsplit('.').next() {
        Some("") => name.to_owned(),
        Some(last) if last == name => path.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_protos::v1::SubmitRequest;
    use proptest::prelude::*;

    fn refused(body: &str) -> (String, String, String) {
        let detail = parse::<SubmitRequest>(body.as_bytes()).unwrap_err();
        (detail.code, detail.field, detail.message)
    }

    #[test]
    fn an_unknown_field_is_named_with_its_path() {
        let (code, field, message) = refused(r#"{"requestTyp": "a"}"#);
        assert_eq!((&*code, &*field), ("unknown-field", "requestTyp"));
        assert!(message.contains("requestType") && message.contains("line 1"), "{message}");
        let (code, field, _) = refused("{\"sla\": {\"priorty\": \"urgent\"}}");
        assert_eq!((&*code, &*field), ("unknown-field", "sla.priorty"));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_line_column_and_path() {
        let (code, field, message) = refused("{\n  \"requestType\": \"a\",\n  \"labels\": {\"k\": 7}\n}");
        assert_eq!((&*code, &*field), ("malformed-body", "labels.k"));
        assert!(message.contains("line 3 column"), "{message}");
        for body in ["", "[]", "null", "{", "{}x", "\"text\"", "{\"input\": {\"directory\": \"/a\", \"items\": {}}}"] {
            assert_eq!(refused(body).0, "malformed-body", "{body}");
        }
    }

    #[test]
    fn a_whole_number_that_would_not_be_exact_is_refused_with_what_to_do() {
        let (code, field, message) = refused(r#"{"parameters": {"seed": 9007199254740993}}"#);
        assert_eq!((&*code, &*field), ("malformed-body", "parameters.seed"));
        assert!(message.ends_with("must be sent as a text"), "{message}");
        assert!(parse::<SubmitRequest>(br#"{"parameters": {"seed": 9007199254740991}}"#).is_ok());
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_overflow() {
        let deep = format!("{{\"parameters\": {{\"a\": {}1{}}}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(refused(&deep).0, "malformed-body");
    }

    proptest! {
        #[test]
        fn whatever_arrives_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse::<SubmitRequest>(&bytes);
        }
    }
}
