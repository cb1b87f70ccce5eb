-- Load reports of workers, as they arrive.
CREATE TABLE IF NOT EXISTS load_samples
(
    worker_id UUID COMMENT 'One life of one worker process',
    worker_name LowCardinality(String),
    fleet LowCardinality(String),
    node_class LowCardinality(String),
    enforcement LowCardinality(String) COMMENT 'cgroup-v1, cgroup-v2, rusage',
    sequence UInt64,
    at DateTime64(3, 'UTC'),
    capacity_cpu_millis UInt64 COMMENT 'Thousandths of a core',
    capacity_memory_bytes UInt64,
    capacity_io_bytes_per_second UInt64,
    free_cpu_millis UInt64,
    free_memory_bytes UInt64,
    free_io_bytes_per_second UInt64,
    leases UInt32,
    load_average Float64 COMMENT 'Over one minute',
    memory_available_bytes UInt64 COMMENT 'Of the machine',
    draining Bool,
    recorded_at DateTime('UTC') DEFAULT now() COMMENT 'What retention counts from'
)
ENGINE = ReplacingMergeTree
PARTITION BY toMonday(at)
ORDER BY (fleet, worker_id, at, sequence)
SETTINGS non_replicated_deduplication_window = 1000;

-- One row for each plan. A request is planned once; its type never changes.
CREATE TABLE IF NOT EXISTS plans
(
    request_id UUID,
    request_type LowCardinality(String),
    tenant LowCardinality(String),
    priority LowCardinality(String),
    stages UInt32,
    shards UInt32,
    input_items UInt64,
    input_bytes UInt64,
    at DateTime64(3, 'UTC'),
    recorded_at DateTime('UTC') DEFAULT now() COMMENT 'What retention counts from',
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(at)
ORDER BY (request_type, request_id)
SETTINGS non_replicated_deduplication_window = 1000;
