-- Revocations of single tokens that ended by themselves before an instant, the oldest first.
--
-- :since_ms, :before_ms, :limit  as ``old_stripe_events.sql``
--
-- What was revoked of a whole account has no end: nobody knows until when tokens are good that others have made.
SELECT id, token_expires_at_ms FROM revocations
WHERE token_expires_at_ms IS NOT NULL AND token_expires_at_ms >= :since_ms AND token_expires_at_ms < :before_ms
ORDER BY token_expires_at_ms
LIMIT :limit
