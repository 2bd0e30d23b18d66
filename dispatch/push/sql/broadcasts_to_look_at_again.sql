-- Open broadcasts for which people were woken so long ago that whoever had just gone then is known to be away by now.
--
-- :before_ms  when they were woken at the latest
-- :now_ms, :limit
SELECT o.id, o.request_id
FROM offers o
WHERE o.looked_again_at_ms IS NULL AND o.closed_at_ms IS NULL AND o.mechanic_id IS NULL
  AND o.pushed_at_ms IS NOT NULL AND o.pushed_at_ms <= :before_ms AND o.expires_at_ms > :now_ms
ORDER BY o.pushed_at_ms
LIMIT :limit
