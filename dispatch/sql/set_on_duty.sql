-- Note whether a mechanic wants to be asked; counted by the database, as an accept elsewhere may raise the version meanwhile.
--
-- :mechanic_id, :on_duty, :back_at_ms, :off_after_session  as ``plan_duty.sql``
-- Returns  the mechanic's facts, as ``presence/read_facts.sql``; no row if that is so already, or to stay so: who is disabled is
--          off duty, whatever an app still says that has not heard of it
-- Locks  the mechanic's row
UPDATE mechanics SET
  on_duty = :on_duty,
  back_at_ms = :back_at_ms,
  off_after_request_id = CASE WHEN :off_after_session THEN active_request_id END,
  facts_version = facts_version + 1
WHERE id = :mechanic_id AND on_duty <> :on_duty AND NOT (is_disabled AND :on_duty)
RETURNING
  id, facts_version, on_duty, coalesce(active_request_id, '') <> '', has_push, last_seen_at_ms, session_types_off, back_at_ms,
  coalesce(off_after_request_id, '-') = coalesce(active_request_id, '')
