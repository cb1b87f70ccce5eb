//! What stands in path, query and headers: each parameter's declaration beside the function that reads it.

use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri};
use forecastle_protos::headers::name;
use forecastle_protos::ids::{RequestId, ShardId};
use forecastle_protos::trace;
use forecastle_protos::v1::RequestState;
use serde_json::{Value, json};

use super::failure::Failure;

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
}

impl Place {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
        }
    }
}

/// A parameter as the document declares it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) description: &'static str,
    pub(super) schema: fn() -> Value,
}

/// The most entries of a page, and how many there are if nobody says.
const LONGEST_PAGE: u32 = 500;
const PAGE: u32 = 50;

/// The states by which requests can be listed.
const STATES: [(&str, RequestState); 5] = [
    ("admitted", RequestState::Admitted),
    ("running", RequestState::Running),
    ("succeeded", RequestState::Succeeded),
    ("failed", RequestState::Failed),
    ("cancelled", RequestState::Cancelled),
];

/// The last time that can be asked for: whole milliseconds that every JSON reader keeps exactly.
const LAST_MS: u64 = (1 << 53) - 1;

/// The longest idempotency key in a header, in bytes.
const LONGEST_KEY: usize = 256;

const UUID_PATTERN: &str = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";

pub(super) const REQUEST_ID: Parameter = Parameter {
    name: "requestId",
    place: Place::Path,
    description: "A request, as a submission was answered.",
    schema: || json!({ "type": "string", "format": "uuid", "pattern": format!("^{UUID_PATTERN}$") }),
};

pub(super) const SHARD_ID: Parameter = Parameter {
    name: "shardId",
    place: Place::Path,
    description: "A shard: `<request>.<stage>.<index>`, both numbers from 0.",
    schema: || json!({ "type": "string", "pattern": format!("^{UUID_PATTERN}[.][0-9]{{1,9}}[.][0-9]{{1,9}}$") }),
};

pub(super) const STATE: Parameter = Parameter {
    name: "state",
    place: Place::Query,
    description: "Only requests in this state.",
    schema: || json!({ "type": "string", "enum": STATES.map(|(name, _)| name) }),
};

pub(super) const REQUEST_TYPE: Parameter = Parameter {
    name: "requestType",
    place: Place::Query,
    description: "Only of this request type.",
    schema: || json!({ "type": "string" }),
};

pub(super) const REASON: Parameter = Parameter {
    name: "reason",
    place: Place::Query,
    description: "Only with this code as reason, such as `out-of-memory` or `poison`.",
    schema: || json!({ "type": "string" }),
};

pub(super) const DIED_BEFORE: Parameter = Parameter {
    name: "diedBeforeUnixMs",
    place: Place::Query,
    description: "Only dead since before this time, in milliseconds since 1970.",
    schema: || json!({ "type": "integer", "minimum": 0, "maximum": LAST_MS }),
};

pub(super) const LIMIT: Parameter = Parameter {
    name: "limit",
    place: Place::Query,
    description: "The most entries of this page.",
    schema: || json!({ "type": "integer", "minimum": 1, "maximum": LONGEST_PAGE, "default": PAGE }),
};

pub(super) const REQUEST_CURSOR: Parameter = Parameter {
    name: "cursor",
    place: Place::Query,
    description: "`nextCursor` of the page before.",
    schema: || json!({ "type": "string", "pattern": "^[0-9]{1,18}$" }),
};

pub(super) const RESULT_CURSOR: Parameter = Parameter {
    name: "cursor",
    place: Place::Query,
    description: "`nextCursor` of the page before.",
    schema: || json!({ "type": "string", "pattern": "^[0-9]{1,9}[.][0-9]{1,9}$" }),
};

pub(super) const IDEMPOTENCY_KEY: Parameter = Parameter {
    name: "Idempotency-Key",
    place: Place::Header,
    description: "Makes a repeated submission the same request; stands in for `idempotencyKey` of the body.",
    schema: || json!({ "type": "string", "pattern": format!("^[!-~]{{1,{LONGEST_KEY}}}$") }),
};

/// What a request says in its path, query and headers.
#[derive(Debug)]
pub(super) struct Given {
    path: Vec<(String, String)>,
    query: Vec<(String, String)>,
    headers: HeaderMap,
}

impl<S: Send + Sync> FromRequestParts<S> for Given {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|error| Failure::bad_request("invalid-path", "", error.to_string()))?;
        Ok(Self {
            path: path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            query: query(&parts.uri)?,
            headers: parts.headers.clone(),
        })
    }
}

fn query(uri: &Uri) -> Result<Vec<(String, String)>, Failure> {
    Query::try_from_uri(uri)
        .map(|Query(pairs)| pairs)
        .map_err(|error| Failure::bad_request("invalid-query", "", error.to_string()))
}

/// Refuses query parameters that an operation does not have, or has twice.
pub(super) fn check_query(uri: &Uri, known: &[&str]) -> Result<(), Failure> {
    let pairs = query(uri)?;
    for (place, (name, _)) in pairs.iter().enumerate() {
        if !known.contains(&&**name) {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!("there is no such query parameter here (there are: {known})");
            return Err(Failure::bad_request("unknown-query-parameter", &shortened(name), message));
        }
        if pairs[..place].iter().any(|(earlier, _)| earlier == name) {
            return Err(Failure::bad_request("invalid-query", name, "it is given twice"));
        }
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl Given {
    fn in_path(&self, parameter: &Parameter) -> &str {
        self.path.iter().find(|(name, _)| name == parameter.name).map_or("", |(_, value)| value)
    }

    fn in_query(&self, parameter: &Parameter) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == parameter.name).map(|(_, value)| &**value)
    }

    /// W3C trace context, if what came is one. Tracers add it by themselves; it is no parameter of an operation.
    pub(super) fn traceparent(&self) -> Option<&str> {
        self.headers.get(name::TRACEPARENT)?.to_str().ok().and_then(trace::traceparent)
    }

    /// [`REQUEST_ID`].
    pub(super) fn request_id(&self) -> Result<RequestId, Failure> {
        let parsed = self.in_path(&REQUEST_ID).parse();
        parsed.map_err(|error| Failure::bad_request("invalid-id", REQUEST_ID.name, format!("{error}")))
    }

    /// [`SHARD_ID`].
    pub(super) fn shard_id(&self) -> Result<ShardId, Failure> {
        let parsed = self.in_path(&SHARD_ID).parse();
        parsed.map_err(|error| Failure::bad_request("invalid-id", SHARD_ID.name, format!("{error}")))
    }

    /// [`STATE`].
    pub(super) fn state(&self) -> Result<Option<RequestState>, Failure> {
        let Some(text) = self.in_query(&STATE) else { return Ok(None) };
        let found = STATES.iter().find(|(name, _)| *name == text);
        found.map(|(_, state)| Some(*state)).ok_or_else(|| {
            let message = format!("it must be one of {}", STATES.map(|(name, _)| name).join(", "));
            Failure::bad_request("invalid-query", STATE.name, message)
        })
    }

    /// [`REQUEST_TYPE`].
    pub(super) fn request_type(&self) -> Option<String> {
        self.in_query(&REQUEST_TYPE).map(str::to_owned)
    }

    /// [`REASON`].
    pub(super) fn reason(&self) -> Option<String> {
        self.in_query(&REASON).map(str::to_owned)
    }

    /// [`DIED_BEFORE`].
    pub(super) fn died_before_ms(&self) -> Result<Option<u64>, Failure> {
        let Some(text) = self.in_query(&DIED_BEFORE) else { return Ok(None) };
        digits(text).filter(|time| *time <= LAST_MS).map(Some).ok_or_else(|| {
            let message = "it must be a time in whole milliseconds since 1970";
            Failure::bad_request("invalid-query", DIED_BEFORE.name, message)
        })
    }

    /// [`LIMIT`].
    pub(super) fn limit(&self) -> Result<u32, Failure> {
        match self.in_query(&LIMIT) {
            None => Ok(PAGE),
            Some(text) => digits(text).filter(|limit| (1..=LONGEST_PAGE).contains(limit)).ok_or_else(|| {
                Failure::bad_request(
                    "invalid-query",
                    LIMIT.name,
                    format!("it must be a number from 1 to {LONGEST_PAGE}"),
                )
            }),
        }
    }

    /// [`REQUEST_CURSOR`].
    pub(super) fn request_cursor(&self) -> Result<Option<i64>, Failure> {
        self.cursor(&REQUEST_CURSOR, digits)
    }

    /// [`RESULT_CURSOR`]: stage and index of the last shard that was seen.
    pub(super) fn result_cursor(&self) -> Result<Option<(u32, u32)>, Failure> {
        self.cursor(&RESULT_CURSOR, |text| {
            let (stage, index) = text.split_once('.')?;
            Some((digits(stage)?, digits(index)?))
        })
    }

    fn cursor<T>(&self, parameter: &Parameter, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Failure> {
        let Some(text) = self.in_query(parameter) else { return Ok(None) };
        match read(text) {
            Some(cursor) => Ok(Some(cursor)),
            None => Err(Failure::bad_request("invalid-query", parameter.name, "it must be the nextCursor of a page")),
        }
    }

    /// [`IDEMPOTENCY_KEY`].
    pub(super) fn idempotency_key(&self) -> Result<Option<&str>, Failure> {
        let name = HeaderName::from_static("idempotency-key");
        let refused = |message: String| Failure::bad_request("invalid-idempotency-key", IDEMPOTENCY_KEY.name, message);
        let mut values = self.headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(refused("the header is given twice".to_owned()));
        }
        let visible = |byte: &u8| byte.is_ascii_graphic();
        match value.to_str() {
            Ok(key) if (1..=LONGEST_KEY).contains(&key.len()) && key.as_bytes().iter().all(visible) => Ok(Some(key)),
            _ => Err(refused(format!("a key in a header has 1 to {LONGEST_KEY} visible ASCII characters"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn given(query: &str) -> Given {
        let uri: Uri = format!("/x?{query}").parse().unwrap();
        Given { path: Vec::new(), query: super::query(&uri).unwrap(), headers: HeaderMap::new() }
    }

    #[test]
    fn pages_are_bounded() {
        assert_eq!(given("").limit().unwrap(), PAGE);
        assert_eq!(given("limit=500").limit().unwrap(), 500);
        for text in ["0", "501", "-1", "%2B5", "1.5", "many", "", "99999999999999999999"] {
            let failure = given(&format!("limit={text}")).limit().unwrap_err();
            assert_eq!(failure.detail().field, "limit", "{text}");
        }
    }

    #[test]
    fn cursors_are_read_back_or_refused() {
        assert_eq!(given("cursor=17").request_cursor().unwrap(), Some(17));
        assert_eq!(given("cursor=2.31").result_cursor().unwrap(), Some((2, 31)));
        for text in ["x", "1.", ".1", "1.2.3", "-1.2", ""] {
            assert!(given(&format!("cursor={text}")).result_cursor().is_err(), "{text}");
            assert!(given(&format!("cursor={text}")).request_cursor().is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_whole_milliseconds_since_1970() {
        assert_eq!(given("").died_before_ms().unwrap(), None);
        assert_eq!(given("diedBeforeUnixMs=1795741695394").died_before_ms().unwrap(), Some(1_795_741_695_394));
        for text in ["-1", "1.5", "now", "", "9007199254740992", "99999999999999999999"] {
            let failure = given(&format!("diedBeforeUnixMs={text}")).died_before_ms().unwrap_err();
            assert_eq!(failure.detail().field, "diedBeforeUnixMs", "{text}");
        }
    }

    #[test]
    fn a_state_that_does_not_exist_is_answered_with_those_that_do() {
        assert_eq!(given("state=running").state().unwrap(), Some(RequestState::Running));
        assert!(given("state=RUNNING").state().unwrap_err().detail().message.contains("running"));
    }

    #[test]
    fn query_parameters_are_known_and_given_once() {
        let check = |query: &str| check_query(&format!("/x?{query}").parse().unwrap(), &["limit"]);
        assert!(check("").is_ok() && check("limit=1").is_ok());
        assert_eq!(check("limt=1").unwrap_err().detail().field, "limt");
        assert!(check("limit=1&limit=2").is_err());
    }

    #[test]
    fn an_idempotency_key_in_a_header_is_visible_ascii() {
        let with = |values: &[&[u8]]| {
            let mut given = given("");
            for value in values {
                given.headers.append("idempotency-key", HeaderValue::from_bytes(value).unwrap());
            }
            given
        };
        assert_eq!(with(&[]).idempotency_key().unwrap(), None);
        assert_eq!(with(&[b"a-1"]).idempotency_key().unwrap(), Some("a-1"));
        for values in [&[&b""[..]][..], &[b"a b"], &[b"\xe9"], &[b"a", b"b"], &[&[b'a'; 257]]] {
            assert!(with(values).idempotency_key().is_err(), "{values:?}");
        }
    }
}
