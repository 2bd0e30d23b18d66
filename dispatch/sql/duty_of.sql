-- When a mechanic was on duty within a time, the earliest first.
--
-- :mechanic_id, :from_ms, :until_ms, :now_ms
-- :after_ms  only those that began after it
-- :limit
-- Returns  from when until when; what is open lasts until now, or, if a node of the version before has switched it off without
--          closing it, until the mechanic was last heard of
--
-- Intervals do not overlap: of those that began before the time, only the last can reach into it.
-- What ended as it began is left out: no two of the others begin together.
SELECT d.started_at_ms, CASE
  WHEN d.ended_at_ms IS NOT NULL THEN d.ended_at_ms
  WHEN m.on_duty THEN :now_ms
  ELSE least(:now_ms, coalesce(m.last_seen_at_ms, 0))    -- postgresql
  ELSE min(:now_ms, coalesce(m.last_seen_at_ms, 0))      -- sqlite
END
FROM duty_intervals d
JOIN mechanics m ON m.id = d.mechanic_id
WHERE d.mechanic_id = :mechanic_id AND d.started_at_ms < :until_ms AND d.started_at_ms > :after_ms
  AND (d.ended_at_ms IS NULL OR d.ended_at_ms > d.started_at_ms)
  AND d.started_at_ms >= coalesce(
    (SELECT max(e.started_at_ms) FROM duty_intervals e WHERE e.mechanic_id = :mechanic_id AND e.started_at_ms <= :from_ms), 0
  )
ORDER BY d.started_at_ms
LIMIT :limit
