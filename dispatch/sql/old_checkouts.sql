-- Checkouts that nobody has paid, or whose payment failed, made before an instant; the oldest first.
--
-- :since_ms, :before_ms, :limit  as ``old_stripe_events.sql``
SELECT id, created_at_ms FROM checkouts
WHERE status IN ('expired', 'failed') AND request_id IS NULL AND payment_intent_id IS NULL
  AND created_at_ms >= :since_ms AND created_at_ms < :before_ms
ORDER BY created_at_ms
LIMIT :limit
