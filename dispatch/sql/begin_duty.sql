-- Begin to count the hours of a mechanic who goes on duty; not before their last ones ended, whatever two nodes' clocks say.
--
-- :mechanic_id, :at_ms
-- Returns  the interval's id; no row if one is open already
INSERT INTO duty_intervals (mechanic_id, started_at_ms)
SELECT CAST(:mechanic_id AS varchar), greatest(:at_ms, coalesce(max(ended_at_ms), :at_ms))    -- postgresql
SELECT :mechanic_id, max(:at_ms, coalesce(max(ended_at_ms), :at_ms))                          -- sqlite
FROM (
  SELECT ended_at_ms FROM duty_intervals WHERE mechanic_id = :mechanic_id ORDER BY started_at_ms DESC LIMIT 1
) AS last
WHERE true
ON CONFLICT DO NOTHING
RETURNING id
