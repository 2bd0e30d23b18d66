-- Leave a message that replaces another, for each browser that may have got that.
--
-- :about_id, :replaced (its kind)
-- :kind, :payload (JSON), :due_at_ms, :expires_at_ms
-- Locks  the browsers, as ``add_messages.sql``
INSERT INTO push_messages (
  id, subscription_id, place, about_id, kind, topic, payload, due_at_ms, expires_at_ms, attempts, was_forbidden
)
SELECT
  :kind || '-' || :about_id || '-' || p.subscription_id, p.subscription_id, p.place, :about_id, :kind, p.topic, :payload,
  :due_at_ms, :expires_at_ms, 0, false
FROM push_messages p
JOIN push_subscriptions s ON s.id = p.subscription_id
WHERE p.about_id = :about_id AND p.kind = :replaced AND p.attempts > 0
FOR KEY SHARE OF s    -- postgresql
ON CONFLICT (id) DO NOTHING
