//! Making a request durable, once for each key.

use forecastle_protos::ids::RequestId;
use forecastle_protos::v1::RequestState;
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::{during, reply, signed};
use crate::ledger::{Admission, Admitted, Error};

/// Inserts the request, or finds the one that has its key.
pub(super) fn admit(connection: &Connection, admission: &Admission) -> Result<Admitted, Error> {
    if let Some(key) = &admission.idempotency_key {
        let known: Option<(Uuid, [u8; 32])> = connection
            .prepare_cached("SELECT id, body_sha256 FROM requests WHERE tenant = ?1 AND idempotency_key = ?2")
            .and_then(|mut statement| {
                statement.query_row([&admission.tenant, key], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(during("looking for an idempotency key"))?;
        if let Some((id, body_sha256)) = known {
            let request = RequestId(id);
            if body_sha256 != admission.body_sha256 {
                return Err(Error::Conflict { key: key.clone(), request });
            }
            let reply_owed = match &admission.reply {
                Some(to) => reply::readdress(connection, request, to)?,
                None => false,
            };
            return Ok(Admitted { request, created: false, reply_owed });
        }
    }
    let reply = admission.reply.as_ref();
    connection
        .prepare_cached(
            "INSERT INTO requests (id, tenant, idempotency_key, body_sha256, body, request_type, fleet, priority, state,
                                   created_ms, deadline_ms, reply_queue, reply_correlation, reply_json)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                admission.id.0,
                admission.tenant,
                admission.idempotency_key,
                admission.body_sha256,
                admission.body.encode_to_vec(),
                admission.body.request_type,
                admission.fleet,
                admission.priority.as_str(),
                RequestState::Admitted as i32,
                signed(admission.now_ms),
                admission.deadline_ms.map(signed),
                reply.map(|r| &r.queue),
                reply.and_then(|r| r.correlation_id.as_ref()),
                reply.is_some_and(|r| r.json),
            ])
        })
        .map_err(during("admitting a request"))?;
    Ok(Admitted { request: admission.id, created: true, reply_owed: false })
}
