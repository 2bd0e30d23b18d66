-- Refunds that Stripe is to be asked for or about; in the order of ``due_events``, by when they fell due.
--
-- :now_ms, :limit
SELECT id FROM refunds WHERE next_attempt_at_ms <= :now_ms ORDER BY failures > 0, next_attempt_at_ms, id LIMIT :limit
