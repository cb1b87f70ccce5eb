//! Tables and their version.

use forecastle_protos::ids::LedgerId;
use rusqlite::{Connection, OptionalExtension as _};

use super::during;
use crate::ledger::Error;

/// The schema's version, in SQLite's `user_version`.
pub const VERSION: u32 = 4;

/// What brings a ledger of version `n` to `n + 1`, at index `n`.
const MIGRATIONS: [&str; VERSION as usize] = [V1, V2, V3, V4];

const V1: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;

-- What producers submitted. `seq` is the order of admission and the short key of everything below.
CREATE TABLE requests (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    id              BLOB    NOT NULL UNIQUE,
    tenant          TEXT    NOT NULL,
    idempotency_key TEXT,
    body_sha256     BLOB    NOT NULL,
    body            BLOB    NOT NULL, -- SubmitRequest
    request_type    TEXT    NOT NULL,
    fleet           TEXT    NOT NULL,
    priority        TEXT    NOT NULL,
    state           INTEGER NOT NULL, -- RequestState
    created_ms      INTEGER NOT NULL,
    deadline_ms     INTEGER,
    finished_ms     INTEGER,
    error           BLOB,             -- ErrorDetail
    oom_retries     INTEGER NOT NULL DEFAULT 0,
    reply_queue     TEXT,
    reply_correlation TEXT,
    reply_json      INTEGER NOT NULL DEFAULT 0,
    reply_state     INTEGER NOT NULL DEFAULT 0 -- 0 none wanted or not yet due, 1 owed, 2 delivered, 3 undeliverable
) STRICT;
CREATE UNIQUE INDEX requests_by_key ON requests (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX requests_by_tenant ON requests (tenant, seq);
CREATE INDEX requests_open ON requests (state) WHERE state IN (1, 2);
CREATE INDEX requests_ended ON requests (finished_ms) WHERE finished_ms IS NOT NULL;
CREATE INDEX requests_owing ON requests (reply_state) WHERE reply_state = 1;

-- The plan: written once, never recomputed.
CREATE TABLE stages (
    request    INTEGER NOT NULL,
    stage      INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    depends_on TEXT    NOT NULL, -- JSON array of stage numbers
    shards     INTEGER NOT NULL,
    succeeded  INTEGER NOT NULL DEFAULT 0,
    fired      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (request, stage)
) WITHOUT ROWID, STRICT;

-- Up to 1,024 shards a row: what they are never changes, where they are is one byte each.
CREATE TABLE chunks (
    request INTEGER NOT NULL,
    stage   INTEGER NOT NULL,
    chunk   INTEGER NOT NULL,
    states  BLOB    NOT NULL,
    body    BLOB    NOT NULL, -- ChunkBody
    PRIMARY KEY (request, stage, chunk)
) STRICT;

-- Attempts that were ordered and have not ended: the outbox, and what is reserved.
CREATE TABLE attempts (
    request   INTEGER NOT NULL,
    stage     INTEGER NOT NULL,
    shard     INTEGER NOT NULL,
    attempt   INTEGER NOT NULL,
    confirmed INTEGER NOT NULL DEFAULT 0,
    claimed   INTEGER NOT NULL DEFAULT 0,
    body      BLOB    NOT NULL, -- AttemptBody
    PRIMARY KEY (request, stage, shard)
) WITHOUT ROWID, STRICT;

-- Shards of which an attempt ended without success, until they end.
CREATE TABLE exceptions (
    request       INTEGER NOT NULL,
    stage         INTEGER NOT NULL,
    shard         INTEGER NOT NULL,
    attempts      INTEGER NOT NULL, -- ended so far
    errors        INTEGER NOT NULL,
    out_of_memory INTEGER NOT NULL,
    timeouts      INTEGER NOT NULL,
    lost          INTEGER NOT NULL,
    uncounted     INTEGER NOT NULL,
    not_before_ms INTEGER,          -- while it backs off
    last          BLOB    NOT NULL, -- AttemptBody of the last attempt
    PRIMARY KEY (request, stage, shard)
) WITHOUT ROWID, STRICT;

-- Runs that were claimed and have not ended.
CREATE TABLE runs (
    run_id     BLOB    PRIMARY KEY,
    request    INTEGER NOT NULL,
    stage      INTEGER NOT NULL,
    shard      INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    worker     BLOB    NOT NULL,
    claimed_ms INTEGER NOT NULL,
    unwanted   INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID, STRICT;
CREATE INDEX runs_by_shard ON runs (request, stage, shard);

-- Runs that ended, in the order of their commits. `seq` is what watermarks speak of.
CREATE TABLE events (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id  BLOB    NOT NULL UNIQUE,
    request INTEGER NOT NULL,
    stage   INTEGER NOT NULL,
    shard   INTEGER NOT NULL,
    outcome INTEGER NOT NULL, -- Outcome
    winning INTEGER NOT NULL,
    body    BLOB    NOT NULL  -- RunEvent
) STRICT;
CREATE INDEX events_by_shard ON events (request, stage, shard);

CREATE TABLE watermarks (reader TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID, STRICT;

-- Messages that belong to nothing, kept for people to look at.
CREATE TABLE strays (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms   INTEGER NOT NULL,
    queue   TEXT    NOT NULL,
    reason  TEXT    NOT NULL,
    headers TEXT    NOT NULL,
    body    BLOB    NOT NULL
) STRICT;
";

/// What was sent, word for word, beside what was meant by it.
const V3: &str = "
ALTER TABLE requests ADD COLUMN sent_sha256 BLOB;
";

/// What runs that were given up may have left in the store.
const V4: &str = "
-- Runs that were declared to have ended, until their shard has ended and workers were told to discard what they left.
CREATE TABLE given_up (
    run_id  BLOB    PRIMARY KEY,
    request INTEGER NOT NULL,
    stage   INTEGER NOT NULL,
    shard   INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX given_up_by_request ON given_up (request);
";

/// Budgets that are told apart, the dead, and the logs. What failed under version 1 is dead without a code.
const V2: &str = "
ALTER TABLE exceptions ADD COLUMN returned INTEGER NOT NULL DEFAULT 0;

-- Shards that failed for good, until they are replayed, purged or forgotten with their request.
CREATE TABLE dead (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant   TEXT    NOT NULL,
    type     TEXT    NOT NULL,
    request  INTEGER NOT NULL,
    stage    INTEGER NOT NULL,
    shard    INTEGER NOT NULL,
    code     TEXT    NOT NULL,
    error    BLOB,             -- ErrorDetail
    died_ms  INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX dead_by_shard ON dead (request, stage, shard);
CREATE INDEX dead_by_tenant ON dead (tenant, seq);
INSERT INTO dead (tenant, type, request, stage, shard, code, error, died_ms)
    SELECT r.tenant, r.request_type, c.request, c.stage, c.chunk * 1024 + instr(c.states, x'05') - 1, 'unknown',
           r.error, coalesce(r.finished_ms, r.created_ms)
    FROM chunks c JOIN requests r ON r.seq = c.request
    WHERE r.state = 4 AND instr(c.states, x'05') > 0;

-- What was decided about shards that did not go their way. A decision is made once.
CREATE TABLE decisions (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms   INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    tenant  TEXT    NOT NULL,
    type    TEXT    NOT NULL,
    unit    TEXT    NOT NULL,
    request BLOB    NOT NULL,
    stage   INTEGER NOT NULL,
    shard   INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    run     BLOB    NOT NULL, -- empty if it is about none
    worker  BLOB,
    why     TEXT    NOT NULL,
    evidence TEXT   NOT NULL  -- JSON
) STRICT;
CREATE UNIQUE INDEX decisions_once ON decisions (request, stage, shard, attempt, kind, run);

-- What was foreseen for each stage when it was planned.
CREATE TABLE stage_forecasts (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms   INTEGER NOT NULL,
    request BLOB    NOT NULL,
    type    TEXT    NOT NULL,
    tenant  TEXT    NOT NULL,
    priority TEXT   NOT NULL,
    stages  INTEGER NOT NULL,
    shards  INTEGER NOT NULL,
    body    BLOB    NOT NULL  -- StageForecast
) STRICT;

-- Numbers of events that were replaced by others: with them, what a reader has not read can be counted.
CREATE TABLE event_gaps (seq INTEGER PRIMARY KEY) STRICT;
";

/// Settings of every connection.
pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "OFF")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Brings the schema up to date and answers with the ledger's id, minting one for a new ledger.
pub(super) fn migrate(connection: &mut Connection, path: &str) -> Result<LedgerId, Error> {
    let found: u32 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(during("reading its version"))?;
    if found > VERSION {
        return Err(Error::NewerSchema { path: path.to_owned(), found, known: VERSION });
    }
    let transaction = connection.transaction().map_err(during("beginning a migration"))?;
    for (number, migration) in (1..).zip(MIGRATIONS).skip(found as usize) {
        transaction.execute_batch(migration).map_err(during("migrating the schema"))?;
        transaction.pragma_update(None, "user_version", number).map_err(during("recording the schema's version"))?;
    }
    let known: Option<String> = transaction
        .query_row("SELECT value FROM meta WHERE key = 'ledger-id'", [], |row| row.get(0))
        .optional()
        .map_err(during("reading its id"))?;
    let id = if let Some(text) = known {
        text.parse().map_err(|_| Error::Corrupt(format!("its own id `{text}`")))?
    } else {
        let id = LedgerId::new();
        transaction
            .execute("INSERT INTO meta (key, value) VALUES ('ledger-id', ?1)", [id.to_string()])
            .map_err(during("recording its id"))?;
        id
    };
    transaction.commit().map_err(during("committing a migration"))?;
    Ok(id)
}
