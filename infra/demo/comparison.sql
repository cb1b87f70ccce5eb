-- Each unit in both passes: what was reserved, and what was used.
SELECT
    if(request_id = toUUID('{declared}'), '1 declared', '2 learned') AS pass,
    unit,
    arrayStringConcat(arraySort(groupUniqArray(forecast_source)), '+') AS sized_by,
    count() AS runs,
    countIf(outcome = 'out-of-memory') AS oom,
    formatReadableSize(quantileExact(0.5)(reserved_memory_bytes)) AS reserved_p50,
    formatReadableSize(max(reserved_memory_bytes)) AS reserved_max,
    formatReadableSize(quantileExact(0.5)(used_memory_bytes)) AS used_p50,
    formatReadableSize(max(used_memory_bytes)) AS used_max,
    round(avg(reserved_cpu_millis) / 1000, 2) AS reserved_cores,
    round(sum(used_cpu_ms) / greatest(sum(duration_ms), 1), 2) AS used_cores,
    round(sum(reserved_memory_bytes * duration_ms) / 1e12, 2) AS reserved_gb_s,
    round(sum(used_memory_bytes * duration_ms) / 1e12, 2) AS used_gb_s
FROM forecastle.v_runs
WHERE request_id IN (toUUID('{declared}'), toUUID('{learned}'))
GROUP BY pass, unit
ORDER BY unit, pass
FORMAT PrettyCompactMonoBlock
