-- Offers that have ended since browsers were woken for them.
--
-- :limit
SELECT o.id, o.request_id, coalesce(o.close_reason, 'expired')
FROM offers o
WHERE o.pushed_at_ms IS NOT NULL AND o.unpushed_at_ms IS NULL AND o.closed_at_ms IS NOT NULL
ORDER BY o.id
LIMIT :limit
