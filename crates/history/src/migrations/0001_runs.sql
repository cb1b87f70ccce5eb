-- One row for each run, from its completion event.
--
-- The sorting key and the partition are functions of run_id alone, because a replacing table removes duplicates only
-- among rows that agree on both. Anything else a run says may change: the ledger declares a run lost, with a type and
-- an end of its own, and the worker's word arrives later. run_id is a UUID of version 7, so minted_at (when the worker
-- took the shard) orders the table by time: a range of time is a range of the table, and runs of one request lie close
-- together, which makes the indices on request and shard skip nearly everything. A run_id of another version sorts
-- under 1970: right, only slower.
--
-- ledger_seq is the version: the ledger's latest word about a run replaces the earlier ones.
CREATE TABLE IF NOT EXISTS runs
(
    run_id UUID,
    request_id UUID,
    shard_id String,
    attempt UInt32 COMMENT 'From 1',
    worker_id UUID,
    tenant LowCardinality(String),
    request_type LowCardinality(String),
    stage LowCardinality(String),
    unit LowCardinality(String),
    priority LowCardinality(String),
    size_class LowCardinality(String),
    outcome LowCardinality(String) COMMENT 'succeeded, task-error, permanent-error, out-of-memory, timeout, worker-lost, preempted, drained, cancelled, unsupported',
    error String,
    exit_code Int32 COMMENT '-1 if there was none',
    signal Int32 COMMENT '0 if there was none',
    reserved_cpu_millis UInt64 COMMENT 'Thousandths of a core',
    reserved_memory_bytes UInt64,
    reserved_io_bytes_per_second UInt64,
    reserved_duration_ms UInt64 COMMENT 'A prediction, not a limit',
    used_memory_bytes UInt64 COMMENT 'Largest sampled; of a run killed for memory only a lower bound of the need',
    used_cpu_ms UInt64 COMMENT 'User and system time',
    io_read_bytes UInt64,
    io_write_bytes UInt64,
    duration_ms UInt64 COMMENT 'Wall clock, from start to exit',
    usage_source LowCardinality(String) COMMENT 'cgroup-v1, cgroup-v2, rusage, in-process',
    started_at DateTime64(3, 'UTC') COMMENT 'By the worker; 1970 if it never started',
    ended_at DateTime64(3, 'UTC') COMMENT 'By the worker, or by the ledger for a lost run',
    waited_ms UInt64 COMMENT 'From release to claim',
    node_class LowCardinality(String),
    input_bytes UInt64,
    input_items UInt32,
    forecast_source LowCardinality(String) COMMENT 'declared, profile, model, default',
    model_version LowCardinality(String),
    quantile Float64 COMMENT 'The quantile of memory that the reservation stands for',
    need_probability Array(Float64) COMMENT 'The need_ arrays run in parallel: quantiles of what it was forecast to use',
    need_cpu_millis Array(Float64),
    need_memory_bytes Array(Float64),
    need_io_bytes_per_second Array(Float64),
    need_duration_ms Array(Float64),
    memory_ladder_bytes Array(UInt64) COMMENT 'Memory of this attempt and of those that would follow a kill for memory',
    winning Bool COMMENT 'The ledger committed this run as the success of its shard',
    ledger_seq UInt64,
    minted_at DateTime64(3, 'UTC') MATERIALIZED UUIDv7ToDateTime(run_id, 'UTC') COMMENT 'When the worker minted run_id',
    recorded_at DateTime('UTC') DEFAULT now() COMMENT 'What retention counts from',
    INDEX by_request request_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_shard shard_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_end ended_at TYPE minmax GRANULARITY 1,
    INDEX by_type request_type TYPE set(64) GRANULARITY 4
)
ENGINE = ReplacingMergeTree(ledger_seq)
PARTITION BY toYYYYMM(minted_at)
ORDER BY (minted_at, run_id)
-- So that a batch that is inserted again with the same token is not even written.
SETTINGS non_replicated_deduplication_window = 1000;
