-- Give a checkout its end, for the first who comes: whoever finds no row is late.
--
-- :id, :status, :unless (a status that it must not have), :payment_intent_id, :stripe_session_id, :request_id (NULL: never dispatched)
-- Returns  whom the request is for
UPDATE checkouts
SET status = :status, payment_intent_id = :payment_intent_id, stripe_session_id = :stripe_session_id, request_id = :request_id
WHERE id = :id AND payment_intent_id IS NULL AND status <> :unless
RETURNING preferred_mechanic_id, routing_type
