-- A mechanic's duty before an instant, the newest first, and the one interval that begins next after it.
--
-- :mechanic_id, :before_ms, :now_ms, :limit
-- Returns  as ``duty_of.sql``
--
-- What ended as it began is left out: no two of the others begin together, so each page of them gets further.
SELECT d.started_at_ms, CASE
  WHEN d.ended_at_ms IS NOT NULL THEN d.ended_at_ms
  WHEN m.on_duty THEN :now_ms
  ELSE least(:now_ms, coalesce(m.last_seen_at_ms, 0))    -- postgresql
  ELSE min(:now_ms, coalesce(m.last_seen_at_ms, 0))      -- sqlite
END
FROM duty_intervals d
JOIN mechanics m ON m.id = d.mechanic_id
WHERE d.mechanic_id = :mechanic_id AND (d.ended_at_ms IS NULL OR d.ended_at_ms > d.started_at_ms)
  AND d.started_at_ms <= coalesce(
    (
      SELECT min(e.started_at_ms) FROM duty_intervals e
      WHERE e.mechanic_id = :mechanic_id AND e.started_at_ms >= :before_ms
        AND (e.ended_at_ms IS NULL OR e.ended_at_ms > e.started_at_ms)
    ),
    :before_ms
  )
ORDER BY d.started_at_ms DESC
LIMIT :limit
