//! A shard's message: what an operator reads in the headers, and what the worker needs in the body.

use forecastle_broker::Message;
use forecastle_protos::headers::ShardHeaders;
use forecastle_protos::ids::LedgerId;
use forecastle_protos::{PROTOBUF, trace, v1};
use prost::Message as _;

use crate::ledger::{Release, RequestHead, ShardSpec};

/// The message of an attempt that the ledger ordered.
pub(super) fn shard_message(
    ledger: LedgerId,
    head: &RequestHead,
    spec: &ShardSpec,
    release: &Release,
    upstream: Vec<v1::ShardResult>,
) -> Message {
    let headers = ShardHeaders {
        ledger,
        shard: release.shard,
        attempt: release.attempt,
        request_type: head.request_type.clone(),
        tenant: head.tenant.clone(),
        priority: head.priority,
        class: release.class,
        reservation: release.reservation.clone(),
        quantile: if release.forecast.quantile > 0.0 { release.forecast.quantile.min(1.0) } else { 1.0 },
        model_version: if release.forecast.model_version.is_empty() {
            release.forecast.source.clone()
        } else {
            release.forecast.model_version.clone()
        },
        deadline_unix_ms: head.deadline_ms,
        // Requests that were admitted before there were trace contexts have none.
        traceparent: trace::traceparent(&head.body.traceparent).map(str::to_owned),
    };
    let body = v1::Shard {
        stage: spec.stage_name.clone(),
        unit: spec.unit.clone(),
        parameters: head.body.parameters.clone(),
        items: spec.items.clone(),
        upstream,
        timeout_ms: release.timeout_ms,
        forecast: Some(release.forecast.clone()),
        released_unix_ms: release.now_ms,
        shard_id: release.shard.to_string(),
        attempt: release.attempt,
        checkpoint: spec.checkpoint.clone(),
    };
    Message {
        body: body.encode_to_vec().into(),
        headers: headers.encode(),
        content_type: Some(PROTOBUF.to_owned()),
        message_id: Some(format!("{}#{}", release.shard, release.attempt)),
        kind: Some("shard".to_owned()),
        persistent: true,
        ..Message::default()
    }
}
