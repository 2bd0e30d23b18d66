-- Requests that wait for a favourite who has become busy, or free, since their customers were told.
--
-- :after_id  '' for the first page, then the last offer of the page before
-- :limit
-- Returns  the offers, in the order of their ids, and their requests
--
-- First those few, then in order: a planner that wants the order first goes through all offers that there ever were.
WITH found AS MATERIALIZED (
  SELECT o.id, o.request_id
  FROM offers o
  JOIN mechanics m ON m.id = o.mechanic_id
  WHERE o.closed_at_ms IS NULL AND o.mechanic_id IS NOT NULL AND o.mechanic_is_busy <> (m.active_request_id IS NOT NULL)
)
SELECT id, request_id FROM found WHERE id > :after_id ORDER BY id LIMIT :limit
