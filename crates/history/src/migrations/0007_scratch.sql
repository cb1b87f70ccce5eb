-- Scratch disk that a run reserved. Runs of before reserved none.
ALTER TABLE runs
    ADD COLUMN IF NOT EXISTS reserved_scratch_bytes UInt64 AFTER reserved_io_bytes_per_second;

-- As it was, over the columns that there are now.
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
