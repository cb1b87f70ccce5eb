//! The correlation id of a submission: a digest of the request, key and tenant included.
//!
//! So the replies to a request that was submitted again come to whoever waits for it, whichever submission they
//! answer; and a conflict (the same key with another body) comes to the one that caused it.

use std::fmt::Write as _;

use forecastle_protos::v1;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::Error;

/// 64 hexadecimal digits. Protobuf would not do: the order of a `Struct`'s fields differs from one map to the next.
pub(crate) fn correlation_id(request: &v1::SubmitRequest) -> Result<String, Error> {
    let value = serde_json::to_value(request)
        .map_err(|error| Error::InvalidRequest { field: "parameters", reason: error.to_string() })?;
    let mut hash = Sha256::new();
    feed(&value, &mut hash);
    Ok(hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Feeds a value so that different values feed different bytes: strings are quoted, containers bracketed.
fn feed(value: &Value, hash: &mut Sha256) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(name, _)| *name);
            hash.update(b"{");
            for (name, value) in entries {
                feed(&Value::from(name.as_str()), hash);
                hash.update(b":");
                feed(value, hash);
                hash.update(b",");
            }
            hash.update(b"}");
        }
        Value::Array(values) => {
            hash.update(b"[");
            for value in values {
                feed(value, hash);
                hash.update(b",");
            }
            hash.update(b"]");
        }
        scalar => hash.update(scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(key: &str, parameters: &[(String, f64)]) -> v1::SubmitRequest {
        let fields = parameters
            .iter()
            .map(|(name, number)| {
                let kind = pbjson_types::value::Kind::NumberValue(*number);
                (name.clone(), pbjson_types::Value { kind: Some(kind) })
            })
            .collect();
        v1::SubmitRequest {
            request_type: "archive".to_owned(),
            idempotency_key: key.to_owned(),
            parameters: Some(pbjson_types::Struct { fields }),
            ..Default::default()
        }
    }

    proptest! {
        #[test]
        fn is_the_same_for_equal_requests_whatever_the_order(
            parameters in prop::collection::btree_map("[a-z]{1,8}", -1e6f64..1e6, 0..8),
            key in "[a-z0-9]{1,20}",
        ) {
            let forwards: Vec<_> = parameters.into_iter().collect();
            let backwards: Vec<_> = forwards.iter().rev().cloned().collect();
            let id = correlation_id(&request(&key, &forwards)).unwrap();
            prop_assert_eq!(id.len(), 64);
            prop_assert_eq!(&id, &correlation_id(&request(&key, &backwards)).unwrap());
            prop_assert_ne!(id, correlation_id(&request(&format!("{key}x"), &forwards)).unwrap());
        }
    }

    #[test]
    fn differs_when_the_body_or_the_tenant_differs() {
        let one = request("k", &[("level".to_owned(), 1.0)]);
        let other_body = request("k", &[("level".to_owned(), 2.0)]);
        let other_tenant = v1::SubmitRequest { tenant: "b".to_owned(), ..one.clone() };
        let ids = [&one, &other_body, &other_tenant].map(|r| correlation_id(r).unwrap());
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2], "{ids:?}");
    }
}
