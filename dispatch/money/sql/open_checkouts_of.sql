-- List until when a customer's checkouts count as open, the oldest first.
--
-- :customer_id, :now_ms   :since_ms  before it none was made that counts
-- :limit  at most so many
--
-- A page that a newer one for the same choice has replaced counts for as long as it could have been paid: each has cost Stripe two
-- calls, and whoever makes them one after the other would never come to an end.
-- By when they were made: an index leads to those of one customer's last half hour, and past all that came before.
SELECT c.expires_at_ms FROM checkouts c
WHERE c.customer_id = :customer_id AND c.created_at_ms >= :since_ms AND c.expires_at_ms > :now_ms
  AND (c.status = 'open' OR (c.status = 'expired' AND EXISTS (
    SELECT 1 FROM checkouts newer
    WHERE newer.customer_id = c.customer_id AND newer.created_at_ms >= c.created_at_ms AND newer.id > c.id
      AND newer.plan_id = c.plan_id AND newer.routing_type = c.routing_type
      AND coalesce(newer.preferred_mechanic_id, '') = coalesce(c.preferred_mechanic_id, '')
      AND newer.stripe_session_id IS NOT NULL
  )))
ORDER BY c.created_at_ms LIMIT :limit
