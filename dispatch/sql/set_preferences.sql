-- Note which sessions a mechanic takes and whether open requests may wake them; counted by the database, as an accept elsewhere may
-- raise the version meanwhile.
--
-- :mechanic_id, :types_off, :push_broadcasts
-- Returns  the mechanic's facts, as ``presence/read_facts.sql``; no row if all that is so already
-- Locks  the mechanic's row
UPDATE mechanics SET session_types_off = :types_off, push_broadcasts = :push_broadcasts, facts_version = facts_version + 1
WHERE id = :mechanic_id AND (session_types_off <> :types_off OR push_broadcasts <> :push_broadcasts)
RETURNING
  id, facts_version, on_duty, coalesce(active_request_id, '') <> '', has_push, last_seen_at_ms, session_types_off, back_at_ms,
  coalesce(off_after_request_id, '-') = coalesce(active_request_id, '')
