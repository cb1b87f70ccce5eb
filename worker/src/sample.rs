//! An assignment for tests.

use std::time::Duration;

use forecastle_broker::Message;
use forecastle_protos::headers::ShardHeaders;
use forecastle_protos::ids::{LedgerId, RequestId, ShardId};
use forecastle_protos::{PROTOBUF, v1};
use forecastle_resources::{Bytes, CpuMillis, Priority, Reservation, ResourceVector, SizeClass};
use prost::Message as _;

use crate::assignment::Assignment;

/// A shard of a ledger of its own that reserves a tenth of a core and 16 MiB for a second.
pub(crate) fn assignment() -> Assignment {
    let shard = ShardId { request: RequestId::new(), stage: 0, index: 3 };
    let headers = ShardHeaders {
        ledger: LedgerId::new(),
        shard,
        attempt: 1,
        request_type: "archive".to_owned(),
        tenant: "tests".to_owned(),
        priority: Priority::Standard,
        class: SizeClass::S,
        reservation: Reservation::new(ResourceVector::new(CpuMillis(100), Bytes::mib(16)), Duration::from_secs(1)),
        quantile: 1.0,
        model_version: "declared".to_owned(),
        deadline_unix_ms: None,
        traceparent: None,
    };
    let item = |name: &str, bytes| v1::Item { path: format!("/data/{name}"), name: name.to_owned(), bytes };
    let shard = v1::Shard {
        stage: "files".to_owned(),
        unit: "checksum".to_owned(),
        items: vec![item("a", 10), item("b", 20)],
        timeout_ms: 60_000,
        forecast: Some(v1::Forecast { source: "declared".to_owned(), quantile: 1.0, ..Default::default() }),
        released_unix_ms: 1_000_000,
        shard_id: shard.to_string(),
        attempt: 1,
        ..Default::default()
    };
    Assignment { headers, shard }
}

/// Its message, as the frontend writes it.
pub(crate) fn message(assignment: &Assignment) -> Message {
    Message {
        body: assignment.shard.encode_to_vec().into(),
        headers: assignment.headers.encode(),
        content_type: Some(PROTOBUF.to_owned()),
        message_id: Some(format!("{}#{}", assignment.headers.shard, assignment.headers.attempt)),
        kind: Some("shard".to_owned()),
        persistent: true,
        ..Message::default()
    }
}
