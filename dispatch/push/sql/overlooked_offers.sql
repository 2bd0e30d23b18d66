-- Open priority offers whose mechanics had nothing to be woken by when they were opened, and have now.
--
-- :limit
SELECT o.id
FROM offers o
JOIN mechanics m ON m.id = o.mechanic_id
WHERE o.closed_at_ms IS NULL AND o.pushed_at_ms IS NULL AND NOT o.may_wake AND m.has_push
LIMIT :limit
