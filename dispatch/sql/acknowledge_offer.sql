-- Note that a priority offer has reached the favourite's app, and that a person could see it there: each once.
--
-- :offer_id, :at_ms, :is_seen
-- Returns  whether each has been noted by this very statement; no row if the offer is closed, or both had been before
UPDATE offers SET
  delivered_at_ms = coalesce(delivered_at_ms, :at_ms),
  seen_at_ms = coalesce(seen_at_ms, CASE WHEN :is_seen THEN :at_ms END)
WHERE id = :offer_id AND closed_at_ms IS NULL AND (delivered_at_ms IS NULL OR (:is_seen AND seen_at_ms IS NULL))
RETURNING delivered_at_ms = :at_ms, coalesce(seen_at_ms, -1) = :at_ms
