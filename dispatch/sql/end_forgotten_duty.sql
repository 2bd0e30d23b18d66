-- End the hours of a mechanic whom a node of the version before, which counts none, has set off duty: when they were last heard of.
--
-- :mechanic_id, :at_ms
UPDATE duty_intervals SET ended_at_ms = (
  SELECT greatest(started_at_ms, least(:at_ms, coalesce(m.last_seen_at_ms, 0)))    -- postgresql
  SELECT max(started_at_ms, min(:at_ms, coalesce(m.last_seen_at_ms, 0)))           -- sqlite
  FROM mechanics m WHERE m.id = duty_intervals.mechanic_id
)
WHERE mechanic_id = :mechanic_id AND ended_at_ms IS NULL
