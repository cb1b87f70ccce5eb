//! Final replies to producers over AMQP: where they go, and whether they are owed.
//!
//! `reply_state` is 0 until the request ends with an address, then 1 (owed), and at last 2 (delivered) or 3 (nobody can
//! receive it). A producer that asks again makes it 1 once more.

use forecastle_protos::ids::RequestId;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::during;
use crate::ledger::{Error, ReplyAddress};

/// Takes the address of a repeated submission. True if the request has ended and owes its final reply now.
pub(super) fn readdress(connection: &Connection, request: RequestId, to: &ReplyAddress) -> Result<bool, Error> {
    connection
        .prepare_cached(
            "UPDATE requests SET reply_queue = ?2, reply_correlation = ?3, reply_json = ?4,
                    reply_state = CASE WHEN finished_ms IS NULL THEN 0 ELSE 1 END
             WHERE id = ?1",
        )
        .and_then(|mut statement| statement.execute(params![request.0, to.queue, to.correlation_id, to.json]))
        .map_err(during("changing a reply address"))?;
    Ok(owed(connection, request)?.is_some())
}

/// Where the final reply goes, while it is owed.
pub(super) fn owed(connection: &Connection, request: RequestId) -> Result<Option<ReplyAddress>, Error> {
    connection
        .prepare_cached(
            "SELECT reply_queue, reply_correlation, reply_json FROM requests WHERE id = ?1 AND reply_state = 1",
        )
        .and_then(|mut statement| {
            statement
                .query_row([request.0], |row| {
                    Ok(ReplyAddress { queue: row.get(0)?, correlation_id: row.get(1)?, json: row.get(2)? })
                })
                .optional()
        })
        .map_err(during("reading a reply address"))
}

/// The final reply was delivered to `to`, or nobody can receive it there.
pub(super) fn settle(
    connection: &Connection,
    request: RequestId,
    to: &ReplyAddress,
    delivered: bool,
) -> Result<(), Error> {
    connection
        .prepare_cached(
            "UPDATE requests SET reply_state = ?5
             WHERE id = ?1 AND reply_state = 1 AND reply_queue = ?2 AND reply_correlation IS ?3 AND reply_json = ?4",
        )
        .and_then(|mut statement| {
            let state = if delivered { 2 } else { 3 };
            statement.execute(params![request.0, to.queue, to.correlation_id, to.json, state])
        })
        .map_err(during("settling a reply"))?;
    Ok(())
}
