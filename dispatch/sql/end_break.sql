-- Put a mechanic whose break is over on duty again: whoever finds no row is late, or the mechanic has decided otherwise.
--
-- :mechanic_id, :now_ms
-- Returns  the mechanic's facts, as ``presence/read_facts.sql``
-- Locks  the mechanic's row
UPDATE mechanics SET on_duty = true, back_at_ms = NULL, off_after_request_id = NULL, facts_version = facts_version + 1
WHERE id = :mechanic_id AND back_at_ms <= :now_ms
RETURNING
  id, facts_version, on_duty, coalesce(active_request_id, '') <> '', has_push, last_seen_at_ms, session_types_off, back_at_ms,
  coalesce(off_after_request_id, '-') = coalesce(active_request_id, '')
