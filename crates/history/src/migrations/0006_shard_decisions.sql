-- What was decided about shards that did not go their way: one row for each decision, whoever writes it how often.
CREATE TABLE IF NOT EXISTS shard_decisions
(
    request_id UUID,
    shard_id String,
    attempt UInt32 COMMENT '0 if none was ever ordered',
    run_id UUID COMMENT 'All zeros if it is about no run',
    worker_id UUID COMMENT 'All zeros if no worker is concerned',
    tenant LowCardinality(String),
    request_type LowCardinality(String),
    unit LowCardinality(String),
    kind LowCardinality(String) COMMENT 'lost, overdue, late, stuck, poisoned, dead, replayed, purged',
    at DateTime64(3, 'UTC') COMMENT 'By the frontend',
    why String COMMENT 'In words',
    evidence String COMMENT 'JSON: what was seen',
    recorded_at DateTime('UTC') DEFAULT now() COMMENT 'What retention counts from',
    INDEX by_request request_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(at)
ORDER BY (request_type, unit, shard_id, attempt, kind, run_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE VIEW IF NOT EXISTS v_shard_decisions AS SELECT * FROM shard_decisions FINAL;
