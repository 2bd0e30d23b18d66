-- Requests that wait for a favourite of some mechanics who has become busy, or free, since their customers were told.
--
-- :mechanic_ids
-- :after_id, :limit  as ``turned_favorites.sql``, which says why it is written like this
-- Returns  the offers, in the order of their ids, and their requests
WITH found AS MATERIALIZED (
  SELECT o.id, o.request_id
  FROM offers o
  JOIN mechanics m ON m.id = o.mechanic_id
  WHERE o.closed_at_ms IS NULL AND o.mechanic_id IS NOT NULL AND o.mechanic_is_busy <> (m.active_request_id IS NOT NULL)
    AND o.mechanic_id = ANY (:mechanic_ids)                              -- postgresql
    AND o.mechanic_id IN (SELECT value FROM json_each(:mechanic_ids))    -- sqlite
)
SELECT id, request_id FROM found WHERE id > :after_id ORDER BY id LIMIT :limit
