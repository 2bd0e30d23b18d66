-- Events that are to be worked on: who has never failed comes first, as a crowd of rows that fail must not keep others waiting.
--
-- :now_ms, :limit
SELECT id FROM stripe_events
WHERE processed_at_ms IS NULL AND next_attempt_at_ms <= :now_ms
ORDER BY failures > 0, received_at_ms, id
LIMIT :limit
