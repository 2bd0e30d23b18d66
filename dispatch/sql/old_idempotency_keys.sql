-- Checkouts of before an instant that have not forgotten under which key they were asked for; the oldest first.
--
-- :since_ms, :before_ms, :limit  as ``old_stripe_events.sql``
--
-- One that is still open is left alone: whoever repeated it would be given a second page to pay on.
SELECT id, created_at_ms FROM checkouts
WHERE idempotency_key IS NOT NULL AND status <> 'open' AND created_at_ms >= :since_ms AND created_at_ms < :before_ms
ORDER BY created_at_ms
LIMIT :limit
