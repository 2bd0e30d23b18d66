-- Broadcasts that are open for others and that a mechanic has declined, the newest first. It looks at what is open, and at no past.
--
-- :mechanic_id, :from_ms, :before_ms, :before_id, :limit  as ``past_broadcasts.sql``, also in how exclusions are asked for
SELECT o.id, o.opened_at_ms
FROM offers o
WHERE o.closed_at_ms IS NULL AND o.mechanic_id IS NULL
  AND o.opened_at_ms < (
    SELECT e.at_ms FROM exclusions e
    WHERE e.request_id = o.request_id AND e.mechanic_id = :mechanic_id AND e.because = 'declined'
  )
  AND o.opened_at_ms >= :from_ms AND (o.opened_at_ms, o.id) < (:before_ms, :before_id)
ORDER BY o.opened_at_ms DESC, o.id DESC
LIMIT :limit
