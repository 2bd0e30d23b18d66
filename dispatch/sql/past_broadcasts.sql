-- Broadcasts that have ended, the newest first: of those opened within a time those that were still open after an instant, and that
-- a mechanic may have been shown. Not those that began and ended while they were in one and the same session of theirs, and none
-- of a kind that they do not take; since when they do not is kept nowhere.
--
-- :mechanic_id  who was not excluded from the request by then
-- :from_ms, :until_ms, :open_after_ms
-- :before_ms, :before_id  only those older than this one
-- :session_ms  no session lasts longer
-- :limit
--
-- Exclusions and sessions are asked for offer by offer: as a join, a planner might read all of them first.
SELECT o.id, o.opened_at_ms
FROM offers o
WHERE o.closed_at_ms IS NOT NULL AND o.mechanic_id IS NULL
  AND o.opened_at_ms >= :from_ms AND o.opened_at_ms < :until_ms AND o.closed_at_ms > :open_after_ms
  AND (o.opened_at_ms, o.id) < (:before_ms, :before_id)
  AND o.opened_at_ms < coalesce(
    (SELECT e.at_ms FROM exclusions e WHERE e.request_id = o.request_id AND e.mechanic_id = :mechanic_id), o.opened_at_ms + 1
  )
  AND (
    SELECT s.id FROM session_requests s
    WHERE s.assigned_mechanic_id = :mechanic_id AND s.started_at_ms <= o.closed_at_ms
      AND s.started_at_ms > o.opened_at_ms - :session_ms
      AND s.accepted_at_ms <= o.opened_at_ms AND coalesce(s.completed_at_ms, o.closed_at_ms) >= o.closed_at_ms
    LIMIT 1
  ) IS NULL
  AND (
    SELECT ',' || m.session_types_off || ',' NOT LIKE '%,' || r.session_type || ',%'
    FROM mechanics m, session_requests r WHERE m.id = :mechanic_id AND r.id = o.request_id
  )
ORDER BY o.opened_at_ms DESC, o.id DESC
LIMIT :limit
