-- A push service has taken a message for a browser: whatever failed there before is mended.
--
-- :subscription_id, :at_ms
UPDATE push_subscriptions SET last_used_at_ms = :at_ms, failures = 0, last_error = NULL WHERE id = :subscription_id
