-- Broadcasts that a mechanic took, the newest first, whether or not they were on duty.
--
-- :mechanic_id, :from_ms, :before_ms, :before_id, :limit  as ``past_broadcasts.sql``
SELECT o.id, o.opened_at_ms
FROM offers o
WHERE o.mechanic_id IS NULL AND o.taken_by_id IS NOT NULL AND o.taken_by_id = :mechanic_id
  AND o.opened_at_ms >= :from_ms AND (o.opened_at_ms, o.id) < (:before_ms, :before_id)
ORDER BY o.opened_at_ms DESC, o.id DESC
LIMIT :limit
