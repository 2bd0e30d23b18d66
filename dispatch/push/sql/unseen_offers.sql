-- Open priority offers whose favourites have a browser that can be woken, and have not been woken for them.
--
-- :now_ms, :after_id, :limit  in the order of their ids, after that one: whoever waits long is looked at again and again
--
-- Read from an index of what may wake somebody alone: ten thousand open offers to mechanics without a browser cost nothing here.
SELECT o.id, o.request_id, o.mechanic_id, o.opened_at_ms, o.delivered_at_ms, o.seen_at_ms
FROM offers o
JOIN mechanics m ON m.id = o.mechanic_id
WHERE o.may_wake AND o.pushed_at_ms IS NULL AND o.closed_at_ms IS NULL AND o.id > :after_id AND o.expires_at_ms > :now_ms AND m.has_push
ORDER BY o.id
LIMIT :limit
