-- Leave a message for some browsers that only says that it has arrived.
--
-- :ids  subscriptions
-- :kind, :about_id, :payload (JSON), :at_ms, :expires_at_ms
INSERT INTO push_messages (
  id, subscription_id, place, about_id, kind, topic, payload, due_at_ms, expires_at_ms, attempts, was_forbidden
)
SELECT
  :kind || '-' || :about_id || '-' || s.id, s.id, coalesce(s.place, s.id), :about_id, :kind, :about_id, :payload, :at_ms,
  :expires_at_ms, 0, false
FROM push_subscriptions s
WHERE s.id = ANY (:ids)                              -- postgresql
WHERE s.id IN (SELECT value FROM json_each(:ids))    -- sqlite
