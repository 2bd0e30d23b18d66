-- Whom there is, or was, a message for.
--
-- :about_id, :kind
SELECT DISTINCT s.mechanic_id
FROM push_messages m
JOIN push_subscriptions s ON s.id = m.subscription_id
WHERE m.about_id = :about_id AND m.kind = :kind
