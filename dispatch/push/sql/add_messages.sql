-- Leave a message for each browser of some accounts; one that is there already stays as it is.
--
-- :account_ids
-- :kind, :about_id, :topic, :payload (JSON), :due_at_ms, :expires_at_ms
-- Locks  the browsers against being forgotten: one that is being forgotten just now is left out, else its message would miss it
INSERT INTO push_messages (
  id, subscription_id, place, about_id, kind, topic, payload, due_at_ms, expires_at_ms, attempts, was_forbidden
)
SELECT
  :kind || '-' || :about_id || '-' || s.id, s.id, coalesce(s.place, s.id), :about_id, :kind, :topic, :payload, :due_at_ms,
  :expires_at_ms, 0, false
FROM push_subscriptions s
WHERE s.set_aside_at_ms IS NULL
  AND s.mechanic_id = ANY (:account_ids)                              -- postgresql
  AND s.mechanic_id IN (SELECT value FROM json_each(:account_ids))    -- sqlite
FOR KEY SHARE OF s                                                    -- postgresql
ON CONFLICT (id) DO NOTHING
