-- Take messages to send them; the condition is checked again, as somebody else may have seen the same ones.
--
-- :ids, :now_ms, :leased_until_ms
-- Returns  what is needed to send each, with its browser's keys
UPDATE push_messages SET due_at_ms = :leased_until_ms, attempts = attempts + 1
WHERE done_at_ms IS NULL AND due_at_ms <= :now_ms
  AND id = ANY (:ids)                              -- postgresql
  AND id IN (SELECT value FROM json_each(:ids))    -- sqlite
RETURNING
  id, subscription_id, place, topic, kind, payload, expires_at_ms, attempts, was_forbidden,
  (SELECT s.mechanic_id FROM push_subscriptions s WHERE s.id = subscription_id),
  (SELECT s.endpoint FROM push_subscriptions s WHERE s.id = subscription_id),
  (SELECT s.p256dh FROM push_subscriptions s WHERE s.id = subscription_id),
  (SELECT s.auth FROM push_subscriptions s WHERE s.id = subscription_id)
