-- Requests that a node of an earlier version has let be accepted or started, and set no time limit; or migrated ones.
--
-- :after_id  '' for the first page, then the last id of the page before
-- :limit
-- Returns  ids, in their order
--
-- First those few, then in order: a planner that wants the order first goes through all that there ever were.
WITH found AS MATERIALIZED (
  SELECT id FROM session_requests
  WHERE (status = 'accepted' AND accepted_at_ms IS NOT NULL AND coalesce(limit_of_ms, -1) <> accepted_at_ms)
     OR (status = 'in_progress' AND started_at_ms IS NOT NULL AND coalesce(limit_of_ms, -1) <> started_at_ms)
)
SELECT id FROM found WHERE id > :after_id ORDER BY id LIMIT :limit
