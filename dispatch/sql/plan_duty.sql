-- Note what is to follow for a mechanic whose duty stays as it is.
--
-- :mechanic_id, :on_duty  whose duty is what they think it is
-- :back_at_ms  when they go on duty again by themselves (NULL: they do not)
-- :off_after_session  whether they go off duty with the session that they are in
-- Returns  the mechanic's facts, as ``presence/read_facts.sql``; no row if that is so already
-- Locks  the mechanic's row
UPDATE mechanics SET
  back_at_ms = :back_at_ms,
  off_after_request_id = CASE WHEN :off_after_session THEN active_request_id END,
  facts_version = facts_version + 1
WHERE id = :mechanic_id AND on_duty = :on_duty
  AND (back_at_ms IS DISTINCT FROM :back_at_ms                                                                -- postgresql
  AND (back_at_ms IS NOT :back_at_ms                                                                          -- sqlite
    OR (coalesce(off_after_request_id, '-') = coalesce(active_request_id, '')) <> :off_after_session)
RETURNING
  id, facts_version, on_duty, coalesce(active_request_id, '') <> '', has_push, last_seen_at_ms, session_types_off, back_at_ms,
  coalesce(off_after_request_id, '-') = coalesce(active_request_id, '')
