-- List until when a customer's checkouts can be paid, the oldest first.
--
-- :customer_id, :now_ms   :since_ms  before it none was made that can still be paid
-- :limit  at most so many
--
-- By when they were made: an index leads to those of one customer's last half hour, and past all that came before.
SELECT expires_at_ms FROM checkouts
WHERE customer_id = :customer_id AND created_at_ms >= :since_ms AND status = 'open' AND expires_at_ms > :now_ms
ORDER BY created_at_ms LIMIT :limit
