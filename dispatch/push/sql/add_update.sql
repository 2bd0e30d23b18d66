-- Leave a message about a request for each browser of its customer, or of a mechanic who has or had it; one that is there already
-- stays as it is.
--
-- :name  what the messages are called, before the browser's id: of the request and what they say of it
-- :account_id, :request_id, :kind, :payload (JSON), :due_at_ms, :expires_at_ms
-- :is_news  else it is left only to those browsers that have been told of the request, or are about to be
-- Locks  the browsers, as ``add_messages.sql``
INSERT INTO push_messages (
  id, subscription_id, place, about_id, kind, topic, payload, due_at_ms, expires_at_ms, attempts, was_forbidden
)
SELECT
  :name || '-' || s.id, s.id, coalesce(s.place, s.id), :request_id, :kind, :request_id, :payload, :due_at_ms, :expires_at_ms, 0,
  false
FROM push_subscriptions s
WHERE s.mechanic_id = :account_id AND s.set_aside_at_ms IS NULL
  AND (:is_news OR EXISTS (
    SELECT 1 FROM push_messages p
    WHERE p.about_id = CAST(:request_id AS varchar) AND p.kind = CAST(:kind AS varchar) AND p.subscription_id = s.id
      AND (p.attempts > 0 OR p.done_at_ms IS NULL)
  ))
FOR KEY SHARE OF s    -- postgresql
ON CONFLICT (id) DO NOTHING
