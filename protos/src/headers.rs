//! The header codec: what an operator reads in RabbitMQ's own console.
//!
//! Named resources travel as `x-fc-resource-<name>`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, Priority, Reservation, ResourceVector, SizeClass};

use crate::ids::{LedgerId, RequestId, ShardId};

/// A header's value, in the terms of AMQP 0-9-1's tables but of no library.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderValue {
    /// A text.
    Text(String),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Anything else (tables, arrays, binary): kept out of the codec, named so that errors can say what was there.
    Other(&'static str),
}

/// Headers by name.
pub type Headers = BTreeMap<String, HeaderValue>;

impl fmt::Display for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Int(int) => int.fmt(f),
            Self::Float(float) => float.fmt(f),
            Self::Bool(bool) => bool.fmt(f),
            Self::Other(kind) => write!(f, "<{kind}>"),
        }
    }
}

/// Names of the headers.
pub mod name {
    /// The ledger that ordered this attempt.
    pub const LEDGER: &str = "x-fc-ledger";
    /// The request.
    pub const REQUEST_ID: &str = "x-fc-request-id";
    /// The shard.
    pub const SHARD_ID: &str = "x-fc-shard-id";
    /// The attempt, from 1.
    pub const ATTEMPT: &str = "x-fc-attempt";
    /// The request type.
    pub const REQUEST_TYPE: &str = "x-fc-request-type";
    /// The tenant.
    pub const TENANT: &str = "x-fc-tenant";
    /// `urgent`, `standard` or `batch`.
    pub const PRIORITY: &str = "x-fc-priority";
    /// The size class.
    pub const CLASS: &str = "x-fc-class";
    /// Reserved CPU in thousandths of a core.
    pub const CPU_MILLIS: &str = "x-fc-cpu-millis";
    /// Reserved memory in bytes.
    pub const MEMORY_BYTES: &str = "x-fc-memory-bytes";
    /// Reserved I/O rate in bytes per second.
    pub const IO: &str = "x-fc-io-bytes-per-second";
    /// Reserved scratch disk in bytes. Absent if none.
    pub const SCRATCH_BYTES: &str = "x-fc-scratch-bytes";
    /// Predicted duration in milliseconds.
    pub const DURATION_MS: &str = "x-fc-duration-ms";
    /// The quantile of memory that the reservation stands for.
    pub const QUANTILE: &str = "x-fc-quantile";
    /// What predicted it.
    pub const MODEL_VERSION: &str = "x-fc-model-version";
    /// After this the result is of no use; milliseconds since 1970. Absent without a deadline.
    pub const DEADLINE: &str = "x-fc-deadline-unix-ms";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// Prefix of named resources.
    pub const NAMED_PREFIX: &str = "x-fc-resource-";
    /// Why a request was refused, on messages in the rejected queue.
    pub const REJECTED_BECAUSE: &str = "x-fc-rejected-because";
}

/// Whose a shard is and what it reserves.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardHeaders {
    /// The ledger that ordered this attempt.
    pub ledger: LedgerId,
    /// The shard (its request is part of it).
    pub shard: ShardId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The request type.
    pub request_type: String,
    /// The tenant.
    pub tenant: String,
    /// The priority.
    pub priority: Priority,
    /// The size class.
    pub class: SizeClass,
    /// The reservation.
    pub reservation: Reservation,
    /// The quantile of memory that the reservation stands for, in (0, 1]; 1 for declared values.
    pub quantile: f64,
    /// What predicted it: `declared`, or the version of a profile or model.
    pub model_version: String,
    /// After this the result is of no use; milliseconds since 1970.
    pub deadline_unix_ms: Option<u64>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// Why headers are not those of a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It is not there.
    #[error("header {name} is missing")]
    Missing {
        /// The header.
        name: &'static str,
    },
    /// It is there and makes no sense.
    #[error("header {name} is `{value}`, which is not {expected}")]
    Invalid {
        /// The header.
        name: String,
        /// What was there, at most 64 characters of it.
        value: String,
        /// What belongs there.
        expected: &'static str,
    },
}

impl HeaderError {
    /// The header that is wrong.
    pub fn name(&self) -> &str {
        match self {
            Self::Missing { name } => name,
            Self::Invalid { name, .. } => name,
        }
    }
}

impl ShardHeaders {
    /// To headers.
    pub fn encode(&self) -> Headers {
        let text = |value: &dyn fmt::Display| HeaderValue::Text(value.to_string());
        // Whatever exceeds AMQP's signed integers is as good as infinite; no machine holds it.
        let int = |value: u64| HeaderValue::Int(i64::try_from(value).unwrap_or(i64::MAX));
        let vector = &self.reservation.vector;
        let duration_ms = u64::try_from(self.reservation.duration.as_millis()).unwrap_or(u64::MAX);
        let mut headers: Headers = [
            (name::LEDGER, text(&self.ledger)),
            (name::REQUEST_ID, text(&self.shard.request)),
            (name::SHARD_ID, text(&self.shard)),
            (name::ATTEMPT, int(self.attempt.into())),
            (name::REQUEST_TYPE, text(&self.request_type)),
            (name::TENANT, text(&self.tenant)),
            (name::PRIORITY, text(&self.priority)),
            (name::CLASS, text(&self.class)),
            (name::CPU_MILLIS, int(vector.cpu.0)),
            (name::MEMORY_BYTES, int(vector.memory.0)),
            (name::IO, int(vector.io.0)),
            (name::DURATION_MS, int(duration_ms)),
            (name::QUANTILE, HeaderValue::Float(self.quantile)),
            (name::MODEL_VERSION, text(&self.model_version)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        if vector.scratch > Bytes::ZERO {
            headers.insert(name::SCRATCH_BYTES.to_owned(), int(vector.scratch.0));
        }
        headers.extend(vector.named.iter().map(|(name, v)| (format!("{}{name}", name::NAMED_PREFIX), int(*v))));
        headers.extend(self.deadline_unix_ms.map(|ms| (name::DEADLINE.to_owned(), int(ms))));
        headers.extend(self.traceparent.as_ref().map(|t| (name::TRACEPARENT.to_owned(), text(t))));
        headers
    }

    /// From headers. Unknown headers are left alone: brokers and tracers add their own.
    pub fn decode(headers: &Headers) -> Result<Self, HeaderError> {
        let shard: ShardId = parsed(headers, name::SHARD_ID, "a shard id (<request>.<stage>.<index>)")?;
        let request: RequestId = parsed(headers, name::REQUEST_ID, "a request id (a UUID)")?;
        if shard.request != request {
            return Err(invalid(name::REQUEST_ID, &request, "the request of the shard id"));
        }
        let attempt = unsigned(headers, name::ATTEMPT)?;
        let attempt = u32::try_from(attempt)
            .ok()
            .filter(|attempt| *attempt > 0)
            .ok_or_else(|| invalid(name::ATTEMPT, &attempt, "a positive 32-bit integer"))?;
        let mut named = BTreeMap::new();
        for (header, value) in headers {
            if let Some(resource) = header.strip_prefix(name::NAMED_PREFIX) {
                match as_unsigned(value) {
                    Some(0) => {}
                    Some(amount) if !resource.is_empty() => {
                        named.insert(resource.to_owned(), amount);
                    }
                    _ => return Err(invalid(header, value, "a non-negative integer for a named resource")),
                }
            }
        }
        let quantile = match require(headers, name::QUANTILE)? {
            HeaderValue::Float(q) if *q > 0.0 && *q <= 1.0 => *q,
            HeaderValue::Int(1) => 1.0,
            other => return Err(invalid(name::QUANTILE, other, "a number in (0, 1]")),
        };
        let deadline_unix_ms = unsigned_if_present(headers, name::DEADLINE)?;
        // Messages from before there was such a thing have none.
        let scratch = Bytes(unsigned_if_present(headers, name::SCRATCH_BYTES)?.unwrap_or(0));
        let traceparent = match headers.get(name::TRACEPARENT) {
            Some(HeaderValue::Text(text)) => Some(text.clone()),
            _ => None,
        };
        Ok(Self {
            ledger: parsed(headers, name::LEDGER, "a ledger id (a UUID)")?,
            shard,
            attempt,
            request_type: text(headers, name::REQUEST_TYPE)?,
            tenant: text(headers, name::TENANT)?,
            priority: parsed(headers, name::PRIORITY, "urgent, standard or batch")?,
            class: parsed(headers, name::CLASS, "tiny, s, m, l or xl")?,
            reservation: Reservation {
                vector: ResourceVector {
                    cpu: CpuMillis(unsigned(headers, name::CPU_MILLIS)?),
                    memory: Bytes(unsigned(headers, name::MEMORY_BYTES)?),
                    io: BytesPerSecond(unsigned(headers, name::IO)?),
                    scratch,
                    named,
                },
                duration: Duration::from_millis(unsigned(headers, name::DURATION_MS)?),
            },
            quantile,
            model_version: text(headers, name::MODEL_VERSION)?,
            deadline_unix_ms,
            traceparent,
        })
    }
}

fn invalid(name: &str, value: &dyn fmt::Display, expected: &'static str) -> HeaderError {
    HeaderError::Invalid { name: name.to_owned(), value: value.to_string().chars().take(64).collect(), expected }
}

fn require<'a>(headers: &'a Headers, name: &'static str) -> Result<&'a HeaderValue, HeaderError> {
    headers.get(name).ok_or(HeaderError::Missing { name })
}

fn text(headers: &Headers, name: &'static str) -> Result<String, HeaderError> {
    match require(headers, name)? {
        HeaderValue::Text(text) if !text.is_empty() => Ok(text.clone()),
        other => Err(invalid(name, other, "a non-empty text")),
    }
}

fn parsed<T: FromStr>(headers: &Headers, name: &'static str, expected: &'static str) -> Result<T, HeaderError> {
    let value = require(headers, name)?;
    match value {
        HeaderValue::Text(text) => text.parse().map_err(|_| invalid(name, value, expected)),
        other => Err(invalid(name, other, expected)),
    }
}

fn as_unsigned(value: &HeaderValue) -> Option<u64> {
    match value {
        HeaderValue::Int(int) => u64::try_from(*int).ok(),
        _ => None,
    }
}

fn unsigned(headers: &Headers, name: &'static str) -> Result<u64, HeaderError> {
    let value = require(headers, name)?;
    as_unsigned(value).ok_or_else(|| invalid(name, value, "a non-negative integer"))
}

fn unsigned_if_present(headers: &Headers, name: &'static str) -> Result<Option<u64>, HeaderError> {
    if headers.contains_key(name) { unsigned(headers, name).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn shard_headers() -> impl Strategy<Value = ShardHeaders> {
        let amount = || 0u64..=u64::from(u32::MAX);
        (
            (any::<u128>(), any::<u128>(), any::<u32>(), any::<u32>(), 1u32..),
            ("[a-z.-]{1,20}", "\\PC{1,20}", 0usize..3, 0usize..5),
            (
                [amount(), amount(), amount(), amount()],
                prop_oneof![Just(0), amount()],
                proptest::collection::btree_map("[a-z]{1,5}", 1u64..9, 0..3),
            ),
            (0.001f64..=1.0, "\\PC{1,9}", proptest::option::of(amount()), proptest::option::of("\\PC{0,20}")),
        )
            .prop_map(|((ledger, request, stage, index, attempt), names, (amounts, scratch, named), rest)| {
                ShardHeaders {
                    ledger: LedgerId(Uuid::from_u128(ledger)),
                    shard: ShardId { request: RequestId(Uuid::from_u128(request)), stage, index },
                    attempt,
                    request_type: names.0,
                    tenant: names.1,
                    priority: Priority::ALL[names.2],
                    class: SizeClass::ALL[names.3],
                    reservation: Reservation::new(
                        ResourceVector {
                            cpu: CpuMillis(amounts[0]),
                            memory: Bytes(amounts[1]),
                            io: BytesPerSecond(amounts[2]),
                            scratch: Bytes(scratch),
                            named,
                        },
                        Duration::from_millis(amounts[3]),
                    ),
                    quantile: rest.0,
                    model_version: rest.1,
                    deadline_unix_ms: rest.2,
                    traceparent: rest.3,
                }
            })
    }

    fn any_value() -> impl Strategy<Value = HeaderValue> {
        prop_oneof![
            ".{0,80}".prop_map(HeaderValue::Text),
            any::<i64>().prop_map(HeaderValue::Int),
            any::<f64>().prop_map(HeaderValue::Float),
            any::<bool>().prop_map(HeaderValue::Bool),
            Just(HeaderValue::Other("table")),
        ]
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(headers in shard_headers()) {
            prop_assert_eq!(ShardHeaders::decode(&headers.encode()), Ok(headers));
        }

        #[test]
        fn a_missing_header_is_named(headers in shard_headers(), pick in any::<proptest::sample::Index>()) {
            let mut encoded = headers.encode();
            let may_be_absent = [name::SCRATCH_BYTES, name::DEADLINE, name::TRACEPARENT];
            encoded.retain(|name, _| !may_be_absent.contains(&&**name) && !name.starts_with(name::NAMED_PREFIX));
            let names: Vec<_> = encoded.keys().cloned().collect();
            let gone = pick.get(&names);
            encoded.remove(gone);
            let error = ShardHeaders::decode(&encoded).unwrap_err();
            prop_assert_eq!(error.name(), gone.as_str());
        }

        #[test]
        fn without_its_header_no_scratch_is_reserved(mut headers in shard_headers()) {
            let mut encoded = headers.encode();
            prop_assert_eq!(
                encoded.remove(name::SCRATCH_BYTES).is_some(), headers.reservation.vector.scratch > Bytes::ZERO
            );
            headers.reservation.vector.scratch = Bytes::ZERO;
            prop_assert_eq!(ShardHeaders::decode(&encoded), Ok(headers));
        }

        #[test]
        fn nonsense_is_an_error_that_names_the_header_and_never_a_panic(
            headers in shard_headers(), pick in any::<proptest::sample::Index>(), value in any_value(),
        ) {
            let mut encoded = headers.encode();
            let names: Vec<_> = encoded.keys().cloned().collect();
            let changed = pick.get(&names);
            encoded.insert(changed.clone(), value);
            if let Err(error) = ShardHeaders::decode(&encoded) {
                // A changed shard id shows up as a request id that is not the shard's.
                prop_assert!(
                    error.name() == changed || (changed == name::SHARD_ID && error.name() == name::REQUEST_ID)
                );
            }
        }

        #[test]
        fn any_headers_decode_or_fail_in_good_order(
            headers in proptest::collection::btree_map("(x-fc-[a-z-]{1,20})|.{0,10}", any_value(), 0..20),
        ) {
            let _ = ShardHeaders::decode(&headers);
        }
    }
}
