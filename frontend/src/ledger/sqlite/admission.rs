//! Making a request durable, once for each key.

use forecastle_protos::ids::RequestId;
use forecastle_protos::v1::RequestState;
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{during, reply, signed};
use crate::ledger::{Admission, Admitted, Error, Repeated, ReplyAddress};

/// What is known of a key.
struct Known {
    request: RequestId,
    body_sha256: [u8; 32],
    /// `None` for requests of an earlier schema.
    sent_sha256: Option<[u8; 32]>,
}

fn known(connection: &Connection, tenant: &str, key: &str) -> Result<Option<Known>, Error> {
    connection
        .prepare_cached("SELECT id, body_sha256, sent_sha256 FROM requests WHERE tenant = ?1 AND idempotency_key = ?2")
        .and_then(|mut statement| {
            let known = |row: &Row<'_>| {
                Ok(Known { request: RequestId(row.get(0)?), body_sha256: row.get(1)?, sent_sha256: row.get(2)? })
            };
            statement.query_row([tenant, key], known).optional()
        })
        .map_err(during("looking for an idempotency key"))
}

/// Answers a repeated submission.
fn again(connection: &Connection, request: RequestId, reply: Option<&ReplyAddress>) -> Result<Admitted, Error> {
    let reply_owed = match reply {
        Some(to) => reply::readdress(connection, request, to)?,
        None => false,
    };
    Ok(Admitted { request, created: false, reply_owed })
}

/// Finds what was sent before, word for word.
pub(super) fn admitted_before(connection: &Connection, repeated: &Repeated) -> Result<Option<Admitted>, Error> {
    match known(connection, &repeated.tenant, &repeated.idempotency_key)? {
        Some(known) if known.sent_sha256 == Some(repeated.sent_sha256) => {
            again(connection, known.request, repeated.reply.as_ref()).map(Some)
        }
        _ => Ok(None),
    }
}

/// Inserts the request, or finds the one that has its key.
pub(super) fn admit(connection: &Connection, admission: &Admission) -> Result<Admitted, Error> {
    if let Some(key) = &admission.idempotency_key
        && let Some(Known { request, body_sha256, sent_sha256 }) = known(connection, &admission.tenant, key)?
    {
        if body_sha256 != admission.body_sha256 && sent_sha256 != Some(admission.sent_sha256) {
            return Err(Error::Conflict { key: key.clone(), request });
        }
        return again(connection, request, admission.reply.as_ref());
    }
    let reply = admission.reply.as_ref();
    connection
        .prepare_cached(
            "INSERT INTO requests (id, tenant, idempotency_key, body_sha256, body, request_type, fleet, priority, state,
                                   created_ms, deadline_ms, reply_queue, reply_correlation, reply_json, sent_sha256)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
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
                admission.sent_sha256,
            ])
        })
        .map_err(during("admitting a request"))?;
    Ok(Admitted { request: admission.id, created: true, reply_owed: false })
}
