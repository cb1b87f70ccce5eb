-- How leases changed while runs lasted, and what they held over time.
--
-- The adjusted_ arrays run in parallel, one entry for each change, at most 64; further_adjustments counts those after
-- them. Runs of workers that do not say what they held have zeros there; views take the reservation for these.
ALTER TABLE runs
    ADD COLUMN IF NOT EXISTS adjusted_at Array(DateTime64(3, 'UTC')) COMMENT 'By the worker',
    ADD COLUMN IF NOT EXISTS adjusted_change Array(LowCardinality(String)) COMMENT 'grow, shrink, throttle, unthrottle, stop',
    ADD COLUMN IF NOT EXISTS adjusted_reason Array(LowCardinality(String)),
    ADD COLUMN IF NOT EXISTS adjusted_cpu_millis Array(UInt64) COMMENT 'What the lease held after the change',
    ADD COLUMN IF NOT EXISTS adjusted_memory_bytes Array(UInt64),
    ADD COLUMN IF NOT EXISTS adjusted_io_bytes_per_second Array(UInt64),
    ADD COLUMN IF NOT EXISTS further_adjustments UInt32,
    ADD COLUMN IF NOT EXISTS held_memory_byte_seconds Float64 COMMENT 'What the lease held, summed over the time of the run',
    ADD COLUMN IF NOT EXISTS held_core_seconds Float64;

CREATE OR REPLACE VIEW v_runs AS
SELECT
    *,
    minted_at,
    reserved_memory_bytes / 1e9 * duration_ms / 1e3 AS reserved_gb_s,
    used_memory_bytes / 1e9 * duration_ms / 1e3 AS used_gb_s,
    reserved_cpu_millis / 1e3 * duration_ms / 1e3 AS reserved_core_s,
    used_cpu_ms / 1e3 AS used_core_s,
    if(held_memory_byte_seconds > 0, held_memory_byte_seconds / 1e9, reserved_gb_s) AS held_gb_s,
    if(held_core_seconds > 0, held_core_seconds, reserved_core_s) AS held_core_s
FROM runs FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- What was held and not used. Where leases follow use, what was held differs from what was reserved.
CREATE OR REPLACE VIEW v_waste AS
SELECT
    r.request_type AS request_type,
    r.unit AS unit,
    r.forecast_source AS source,
    count() AS runs,
    sum(r.reserved_gb_s) AS reserved_gb_s,
    sum(r.used_gb_s) AS used_gb_s,
    sum(greatest(r.held_gb_s - r.used_gb_s, 0)) AS wasted_gb_s,
    sumIf(r.held_gb_s, NOT r.winning) AS lost_gb_s,
    sum(r.reserved_core_s) AS reserved_core_s,
    sum(r.used_core_s) AS used_core_s,
    sum(greatest(r.held_core_s - r.used_core_s, 0)) AS wasted_core_s,
    sum(r.held_gb_s) AS held_gb_s,
    sum(r.held_core_s) AS held_core_s
FROM v_runs AS r
GROUP BY request_type, unit, source;

-- One row for each change of a lease.
CREATE VIEW IF NOT EXISTS v_adjustments AS
SELECT
    run_id,
    request_id,
    shard_id,
    request_type,
    unit,
    priority,
    worker_id,
    outcome,
    reserved_memory_bytes,
    used_memory_bytes,
    at,
    change,
    reason,
    cpu_millis,
    memory_bytes,
    io_bytes_per_second
FROM v_runs
ARRAY JOIN
    adjusted_at AS at,
    adjusted_change AS change,
    adjusted_reason AS reason,
    adjusted_cpu_millis AS cpu_millis,
    adjusted_memory_bytes AS memory_bytes,
    adjusted_io_bytes_per_second AS io_bytes_per_second;
