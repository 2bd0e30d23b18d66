-- Go on counting a mechanic's last hours, if they have only just ended: a switch that flaps is not a row each time.
--
-- :mechanic_id
-- :since_ms, :at_ms  ended since then and until now, or, under a clock that was set back, as they began
-- Returns  the interval's id; no row if they ended earlier, or are open
UPDATE duty_intervals SET ended_at_ms = NULL
WHERE id = (
    SELECT d.id FROM duty_intervals d WHERE d.mechanic_id = :mechanic_id ORDER BY d.started_at_ms DESC, d.id DESC LIMIT 1
  )
  AND ended_at_ms >= :since_ms AND (ended_at_ms <= :at_ms OR ended_at_ms = started_at_ms)
RETURNING id
