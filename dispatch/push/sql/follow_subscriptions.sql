-- Let whether a mechanic is reachable by push follow what they have subscribed.
--
-- :mechanic_id
-- Returns  the mechanic's facts, as ``presence/read_facts.sql``; no row if that is so already
-- Locks  the mechanic's row; it is locked before, in a statement of its own, or PostgreSQL would count the subscriptions as they
--        were before whoever was waited for
UPDATE mechanics SET has_push = NOT has_push, facts_version = facts_version + 1
WHERE id = :mechanic_id AND has_push <> EXISTS (
  SELECT 1 FROM push_subscriptions s WHERE s.mechanic_id = mechanics.id AND s.set_aside_at_ms IS NULL
)
RETURNING
  id, facts_version, on_duty, coalesce(active_request_id, '') <> '', has_push, last_seen_at_ms, session_types_off, back_at_ms,
  coalesce(off_after_request_id, '-') = coalesce(active_request_id, '')
