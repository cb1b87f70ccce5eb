-- Both passes as a whole.
SELECT
    if(request_id = toUUID('{declared}'), '1 declared', '2 learned') AS pass,
    count() AS runs,
    round(dateDiff('millisecond', min(started_at), max(ended_at)) / 1000, 1) AS makespan_s,
    countIf(outcome = 'out-of-memory') AS oom_retries,
    round(sum(reserved_memory_bytes * duration_ms) / 1e12, 2) AS reserved_gb_s,
    round(sum(used_memory_bytes * duration_ms) / 1e12, 2) AS used_gb_s,
    round(sum(used_memory_bytes * duration_ms) / greatest(sum(reserved_memory_bytes * duration_ms), 1), 3) AS used_of_reserved
FROM forecastle.v_runs
WHERE request_id IN (toUUID('{declared}'), toUUID('{learned}'))
GROUP BY pass
ORDER BY pass
FORMAT PrettyCompactMonoBlock
