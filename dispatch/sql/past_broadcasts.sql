-- Broadcasts that have ended, the newest first: of those opened within a time those that were still open after an instant.
--
-- :mechanic_id  who was not excluded from the request by then
-- :from_ms, :until_ms, :open_after_ms
-- :before_ms, :before_id  only those older than this one
-- :limit
--
-- Exclusions are asked for offer by offer: as a join, a planner might read all of them first.
SELECT o.id, o.opened_at_ms
FROM offers o
WHERE o.closed_at_ms IS NOT NULL AND o.mechanic_id IS NULL
  AND o.opened_at_ms >= :from_ms AND o.opened_at_ms < :until_ms AND o.closed_at_ms > :open_after_ms
  AND (o.opened_at_ms, o.id) < (:before_ms, :before_id)
  AND o.opened_at_ms < coalesce(
    (SELECT e.at_ms FROM exclusions e WHERE e.request_id = o.request_id AND e.mechanic_id = :mechanic_id), o.opened_at_ms + 1
  )
ORDER BY o.opened_at_ms DESC, o.id DESC
LIMIT :limit
