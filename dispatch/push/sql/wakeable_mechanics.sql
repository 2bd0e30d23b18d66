-- Who wants to be woken for a broadcast and may take it: on duty, in no session, not excluded, and taking sessions of its kind; who
-- was here last comes first.
--
-- :request_id, :limit
SELECT m.id
FROM mechanics m
JOIN session_requests r ON r.id = :request_id
WHERE m.push_broadcasts AND m.has_push AND m.on_duty AND m.active_request_id IS NULL
  AND ',' || m.session_types_off || ',' NOT LIKE '%,' || r.session_type || ',%'
  AND NOT EXISTS (SELECT 1 FROM exclusions e WHERE e.request_id = r.id AND e.mechanic_id = m.id)
ORDER BY coalesce(m.last_seen_at_ms, 0) DESC, m.id
LIMIT :limit
