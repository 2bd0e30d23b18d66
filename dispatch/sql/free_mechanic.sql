-- Let a mechanic be free again, if it is this session that they are in.
--
-- :mechanic_id, :request_id
-- Returns  the mechanic's facts, as ``presence/read_facts.sql``
-- Locks  the mechanic's row, after the request's
UPDATE mechanics SET active_request_id = NULL, facts_version = facts_version + 1
WHERE id = :mechanic_id AND active_request_id = :request_id
RETURNING id, facts_version, on_duty, coalesce(active_request_id, '') <> '', has_push, last_seen_at_ms, session_types_off
