-- List when a customer has booked for nothing, the newest first, whatever has become of it.
--
-- :customer_id, :since_ms   :limit  at most so many
SELECT created_at_ms FROM checkouts
WHERE customer_id = :customer_id AND created_at_ms > :since_ms AND price_cents = 0
ORDER BY created_at_ms DESC LIMIT :limit
