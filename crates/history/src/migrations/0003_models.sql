-- Models are rows: weights, metrics and status. The newest active one sizes shards. Kept for ever.
CREATE TABLE IF NOT EXISTS models
(
    version String,
    kind LowCardinality(String) COMMENT 'The architecture',
    status LowCardinality(String) COMMENT 'candidate, active, retired',
    revision UInt64 COMMENT 'Rises with each change of status',
    trained_at DateTime64(3, 'UTC'),
    trained_from DateTime64(3, 'UTC') COMMENT 'The runs it was trained on',
    trained_until DateTime64(3, 'UTC'),
    trained_runs UInt64,
    features String COMMENT 'JSON: names, order and scaling of its inputs',
    metrics String COMMENT 'JSON: what its evaluation found',
    weights String COMMENT 'Bytes' CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY version
SETTINGS non_replicated_deduplication_window = 100;

-- What a reservation was decided on, one row for each attempt.
CREATE TABLE IF NOT EXISTS decisions
(
    request_id UUID,
    shard_id String,
    attempt UInt32,
    request_type LowCardinality(String),
    unit LowCardinality(String),
    at DateTime64(3, 'UTC'),
    source LowCardinality(String) COMMENT 'declared, profile, model, default',
    model_version LowCardinality(String),
    quantile Float64,
    reserved_cpu_millis UInt64,
    reserved_memory_bytes UInt64,
    reserved_io_bytes_per_second UInt64,
    reserved_duration_ms UInt64,
    reason String COMMENT 'Why this and not another, in words',
    recorded_at DateTime('UTC') DEFAULT now() COMMENT 'What retention counts from',
    INDEX by_request request_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(at)
ORDER BY (request_type, unit, shard_id, attempt)
SETTINGS non_replicated_deduplication_window = 1000;

-- How good a forecaster was over a span of runs: one row for each number.
CREATE TABLE IF NOT EXISTS evaluations
(
    source LowCardinality(String),
    model_version String,
    request_type LowCardinality(String),
    unit LowCardinality(String),
    metric LowCardinality(String) COMMENT 'pinball-loss, coverage, waste, …',
    at DateTime64(3, 'UTC'),
    runs_from DateTime64(3, 'UTC'),
    runs_until DateTime64(3, 'UTC'),
    runs UInt64,
    value Float64,
    recorded_at DateTime('UTC') DEFAULT now() COMMENT 'What retention counts from'
)
ENGINE = ReplacingMergeTree
ORDER BY (source, model_version, request_type, unit, metric, at)
SETTINGS non_replicated_deduplication_window = 1000;
