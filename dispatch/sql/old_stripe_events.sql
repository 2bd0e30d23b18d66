-- Events that were worked off before an instant, the oldest first.
--
-- :since_ms, :before_ms, :limit  from then on, and before that
SELECT id, processed_at_ms FROM stripe_events
WHERE processed_at_ms IS NOT NULL AND processed_at_ms >= :since_ms AND processed_at_ms < :before_ms
ORDER BY processed_at_ms
LIMIT :limit
