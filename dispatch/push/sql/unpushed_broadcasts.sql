-- Open broadcasts for which nobody has been woken yet, and somebody wants to be: whether anybody does is asked once, and first.
--
-- :now_ms, :limit
SELECT o.id, o.request_id
FROM offers o
WHERE o.pushed_at_ms IS NULL AND o.closed_at_ms IS NULL AND o.expires_at_ms > :now_ms AND o.mechanic_id IS NULL
  AND EXISTS (SELECT 1 FROM mechanics WHERE push_broadcasts AND has_push AND on_duty)
ORDER BY o.id
LIMIT :limit
