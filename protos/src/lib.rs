//! The wire: what travels between producers, frontend and workers.
//!
//! # Map
//!
//! - [`v1`]: the messages, generated from `proto/forecastle/v1/*.proto`; JSON is proto3's mapping.
//! - [`names`]: exchanges, queues and routing keys.
//! - [`headers`]: the header codec, [`ShardHeaders`](headers::ShardHeaders) to and from `x-fc-…` headers.
//! - [`ids`]: [`RequestId`](ids::RequestId), [`ShardId`](ids::ShardId), [`RunId`](ids::RunId) and the others.
//! - [`trace`]: the W3C trace context that goes with a request.
//! - [`convert`]: between the messages and the types of `forecastle-resources`.
//!
//! # What always holds
//!
//! No type of an AMQP library appears here. Whatever bytes arrive, decoding answers with a typed error and never
//! panics. Of JSON, a submission is read strictly; whatever else is read ignores fields that it does not know, so that a
//! client works with a newer frontend.

pub mod convert;
pub mod headers;
pub mod ids;
pub mod names;
pub mod trace;

/// The messages of version 1. The comments are those of the `.proto` files.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    rustdoc::all,
    reason = "generated code; which lints fire varies"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/forecastle.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/forecastle.v1.serde.rs"));
    include!(concat!(env!("OUT_DIR"), "/strict/forecastle.v1.serde.rs"));
}

/// The compiled `FileDescriptorSet` of every message, for documents that are generated from it.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Content type of a protobuf body.
pub const PROTOBUF: &str = "application/x-protobuf";

/// Content type of a JSON body.
pub const JSON: &str = "application/json";

#[cfg(test)]
mod tests {
    use super::v1;

    #[test]
    fn an_answer_may_have_fields_of_a_newer_version_at_every_depth() {
        let json = r#"{
            "requestId": "r", "fromTheFuture": {"a": [1]},
            "stages": [{"name": "work", "shards": 3, "newer": null}],
            "error": {"code": "c", "newer": "x"}
        }"#;
        let status: v1::RequestStatus = serde_json::from_str(json).unwrap();
        assert_eq!((&*status.request_id, status.stages[0].shards), ("r", 3));
        assert_eq!(status.error.unwrap().code, "c");
        let reply: v1::Reply =
            serde_json::from_str(r#"{"newer": 1, "accepted": {"requestId": "r", "newer": 2}}"#).unwrap();
        assert!(matches!(reply.kind, Some(v1::reply::Kind::Accepted(accepted)) if accepted.request_id == "r"));
    }

    #[test]
    fn a_submission_may_not_at_any_depth() {
        for json in [
            r#"{"requestTyp": "a"}"#,
            r#"{"sla": {"priorty": "urgent"}}"#,
            r#"{"input": {"folder": "/a"}}"#,
            r#"{"input": {"items": {"path": []}}}"#,
        ] {
            let error = serde_json::from_str::<v1::SubmitRequest>(json).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{json}: {error}");
        }
    }
}
