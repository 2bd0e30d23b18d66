-- Let a mechanic be free again, if it is this session that they are in; and off duty, if they wanted to be after it.
--
-- :mechanic_id, :request_id
-- Returns  the mechanic's facts, as ``presence/read_facts.sql``, whether they have gone off duty by this, and whether others
--          wait for them
-- Locks  the mechanic's row, after the request's: executed for many in the order of the mechanics' ids, as everything is that
--        locks several, so that nobody waits for each other in a circle
UPDATE mechanics SET
  on_duty = on_duty AND coalesce(off_after_request_id, '') <> :request_id,
  active_request_id = NULL,
  facts_version = facts_version + 1
WHERE id = :mechanic_id AND active_request_id = :request_id
RETURNING
  id, facts_version, on_duty, coalesce(active_request_id, '') <> '', has_push, last_seen_at_ms, session_types_off, back_at_ms,
  coalesce(off_after_request_id, '-') = coalesce(active_request_id, ''),
  coalesce(off_after_request_id, '') = :request_id,
  EXISTS (
    SELECT 1 FROM offers o WHERE o.mechanic_id = mechanics.id AND o.closed_at_ms IS NULL AND o.request_id <> :request_id
  )
