-- Priority offers to a mechanic that have ended, the newest first.
--
-- :mechanic_id, :from_ms, :before_ms, :before_id, :limit  as ``past_broadcasts.sql``
SELECT o.id, o.opened_at_ms
FROM offers o
WHERE o.closed_at_ms IS NOT NULL AND o.mechanic_id IS NOT NULL AND o.mechanic_id = :mechanic_id
  AND o.opened_at_ms >= :from_ms AND (o.opened_at_ms, o.id) < (:before_ms, :before_id)
ORDER BY o.opened_at_ms DESC, o.id DESC
LIMIT :limit
