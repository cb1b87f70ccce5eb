-- What analysts ask. Every view counts a run once.
--
-- GB·s is 10^9 bytes held for a second; core·s is one core held for a second. Use is the largest memory times the
-- duration, so it is an upper bound, and waste a lower one. Quantiles of what was used are over succeeded runs: a run
-- that was killed says only that it needed more. They are nan where no run succeeded.

CREATE VIEW IF NOT EXISTS v_runs AS
SELECT
    *,
    minted_at,
    reserved_memory_bytes / 1e9 * duration_ms / 1e3 AS reserved_gb_s,
    used_memory_bytes / 1e9 * duration_ms / 1e3 AS used_gb_s,
    reserved_cpu_millis / 1e3 * duration_ms / 1e3 AS reserved_core_s,
    used_cpu_ms / 1e3 AS used_core_s
FROM runs FINAL
-- Rows of one run are in one partition.
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- What was reserved against what was used, by what the forecast came from.
CREATE VIEW IF NOT EXISTS v_predicted_vs_actual AS
SELECT
    r.request_type AS request_type,
    r.unit AS unit,
    r.forecast_source AS source,
    count() AS runs,
    countIf(r.outcome = 'succeeded') AS succeeded,
    countIf(r.outcome = 'out-of-memory') AS out_of_memory,
    quantile(0.5)(r.reserved_memory_bytes) AS reserved_memory_p50,
    quantile(0.95)(r.reserved_memory_bytes) AS reserved_memory_p95,
    max(r.reserved_memory_bytes) AS reserved_memory_max,
    quantileIf(0.5)(r.used_memory_bytes, r.outcome = 'succeeded') AS used_memory_p50,
    quantileIf(0.95)(r.used_memory_bytes, r.outcome = 'succeeded') AS used_memory_p95,
    maxIf(r.used_memory_bytes, r.outcome = 'succeeded') AS used_memory_max,
    sumIf(r.reserved_memory_bytes, r.outcome = 'succeeded')
        / nullIf(sumIf(r.used_memory_bytes, r.outcome = 'succeeded'), 0) AS reserved_to_used_memory,
    quantile(0.5)(r.reserved_cpu_millis) AS reserved_cpu_millis_p50,
    quantileIf(0.5)(r.used_cpu_ms * 1000 / r.duration_ms, r.outcome = 'succeeded' AND r.duration_ms > 0)
        AS used_cpu_millis_p50,
    quantile(0.5)(r.reserved_duration_ms) AS predicted_duration_ms_p50,
    quantileIf(0.5)(r.duration_ms, r.outcome = 'succeeded') AS duration_ms_p50,
    quantileIf(0.95)(r.duration_ms, r.outcome = 'succeeded') AS duration_ms_p95
FROM v_runs AS r
GROUP BY request_type, unit, source;

-- What was held and not used. lost_gb_s was held by runs that did not become the success of their shard.
CREATE VIEW IF NOT EXISTS v_waste AS
SELECT
    r.request_type AS request_type,
    r.unit AS unit,
    r.forecast_source AS source,
    count() AS runs,
    sum(r.reserved_gb_s) AS reserved_gb_s,
    sum(r.used_gb_s) AS used_gb_s,
    sum(greatest(r.reserved_gb_s - r.used_gb_s, 0)) AS wasted_gb_s,
    sumIf(r.reserved_gb_s, NOT r.winning) AS lost_gb_s,
    sum(r.reserved_core_s) AS reserved_core_s,
    sum(r.used_core_s) AS used_core_s,
    sum(greatest(r.reserved_core_s - r.used_core_s, 0)) AS wasted_core_s
FROM v_runs AS r
GROUP BY request_type, unit, source;

-- How runs end: the share of each outcome among the runs of its unit.
CREATE VIEW IF NOT EXISTS v_failures AS
SELECT
    request_type,
    unit,
    outcome,
    count() AS runs,
    count() / sum(count()) OVER (PARTITION BY request_type, unit) AS share
FROM v_runs
GROUP BY request_type, unit, outcome;

-- How long shards wait from release to claim, and run.
CREATE VIEW IF NOT EXISTS v_waiting_running AS
SELECT
    request_type,
    unit,
    priority,
    count() AS runs,
    quantile(0.5)(waited_ms) AS waited_ms_p50,
    quantile(0.95)(waited_ms) AS waited_ms_p95,
    quantile(0.99)(waited_ms) AS waited_ms_p99,
    max(waited_ms) AS waited_ms_max,
    quantile(0.5)(duration_ms) AS duration_ms_p50,
    quantile(0.95)(duration_ms) AS duration_ms_p95,
    quantile(0.99)(duration_ms) AS duration_ms_p99,
    max(duration_ms) AS duration_ms_max
FROM v_runs
GROUP BY request_type, unit, priority;

-- What each worker gets done, by the hour in which runs ended.
CREATE VIEW IF NOT EXISTS v_worker_throughput AS
SELECT
    r.worker_id AS worker_id,
    names.worker_name AS worker_name,
    toStartOfHour(r.ended_at) AS hour,
    count() AS runs,
    countIf(r.outcome = 'succeeded') AS succeeded,
    sum(r.duration_ms) / 1e3 AS run_seconds,
    sum(r.used_core_s) AS used_core_s,
    sum(r.input_bytes) AS input_bytes,
    sum(r.io_read_bytes) AS io_read_bytes,
    sum(r.io_write_bytes) AS io_write_bytes
FROM v_runs AS r
LEFT JOIN
(
    SELECT worker_id, argMax(worker_name, at) AS worker_name FROM load_samples GROUP BY worker_id
) AS names ON names.worker_id = r.worker_id
GROUP BY worker_id, worker_name, hour;
