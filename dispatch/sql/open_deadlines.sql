-- When the offers that are open end, the soonest first: what Redis is reminded of.
--
-- :limit
-- Returns  id, kind, deadline in ms
SELECT id, kind, expires_at_ms FROM offers WHERE closed_at_ms IS NULL ORDER BY expires_at_ms LIMIT :limit
