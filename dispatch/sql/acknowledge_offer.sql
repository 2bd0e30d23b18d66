-- Note that a priority offer has reached the favourite's app, and that a person could see it there: each once.
--
-- :offer_id, :at_ms, :is_seen
-- Returns  the id; no row if the offer is closed, or there is nothing to note. Which of the two has been noted by this very
--          statement is not to be seen of the instants: two of them may have the same
UPDATE offers SET
  delivered_at_ms = coalesce(delivered_at_ms, :at_ms),
  seen_at_ms = coalesce(seen_at_ms, CASE WHEN :is_seen THEN :at_ms END)
WHERE id = :offer_id AND closed_at_ms IS NULL AND (delivered_at_ms IS NULL OR (:is_seen AND seen_at_ms IS NULL))
RETURNING id
