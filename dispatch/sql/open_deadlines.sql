-- When the windows that are open end, the soonest first: what Redis is reminded of.
--
-- :limit
-- Returns  the id of an offer or a time limit, the kind of window, and when time has to do something (of an offer: its deadline), ms
SELECT id, kind, at_ms FROM (
  SELECT o.id, o.kind, o.expires_at_ms AS at_ms FROM offers o WHERE o.closed_at_ms IS NULL
  UNION ALL
  SELECT r.limit_id, r.status, r.limit_rings_at_ms FROM session_requests r
  WHERE r.status IN ('accepted', 'in_progress') AND r.limit_id IS NOT NULL
) AS windows
ORDER BY at_ms
LIMIT :limit
