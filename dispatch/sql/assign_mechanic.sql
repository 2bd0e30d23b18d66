-- Give a mechanic a session, if they are in none: the one place where that happens, so that two accepts of theirs cannot both
-- find them free.
--
-- :mechanic_id, :request_id
-- Returns  the mechanic's facts, as ``presence/read_facts.sql``, and whether others wait for them; no row if they are in a session
-- Locks  the mechanic's row, after the request's; for many as ``free_mechanic.sql``
UPDATE mechanics SET active_request_id = :request_id, facts_version = facts_version + 1
WHERE id = :mechanic_id AND active_request_id IS NULL AND NOT is_disabled
RETURNING
  id, facts_version, on_duty, coalesce(active_request_id, '') <> '', has_push, last_seen_at_ms, session_types_off, back_at_ms,
  coalesce(off_after_request_id, '-') = coalesce(active_request_id, ''),
  EXISTS (
    SELECT 1 FROM offers o WHERE o.mechanic_id = mechanics.id AND o.closed_at_ms IS NULL AND o.request_id <> :request_id
  )
