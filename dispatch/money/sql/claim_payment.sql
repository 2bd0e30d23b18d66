-- Give a checkout its end, for the first who comes: whoever finds no row is late.
--
-- :id, :status, :unless (a status that it must not have), :payment_intent_id, :stripe_session_id, :request_id (NULL: never dispatched)
-- Returns  whom the request is for, and for how long; and whether the same choice may have been paid for on another page beside it
UPDATE checkouts
SET status = :status, payment_intent_id = :payment_intent_id, stripe_session_id = :stripe_session_id, request_id = :request_id
WHERE id = :id AND payment_intent_id IS NULL AND status <> :unless
RETURNING preferred_mechanic_id, routing_type, duration_min, EXISTS (
  SELECT 1 FROM checkouts other LEFT JOIN session_requests r ON r.checkout_id = other.id
  WHERE other.customer_id = checkouts.customer_id AND other.id <> checkouts.id AND other.plan_id = checkouts.plan_id
    AND other.routing_type = checkouts.routing_type
    AND coalesce(other.preferred_mechanic_id, '') = coalesce(checkouts.preferred_mechanic_id, '')
    AND ((other.status = 'open' AND other.stripe_session_id IS NOT NULL) OR r.created_at_ms > checkouts.created_at_ms)
)
