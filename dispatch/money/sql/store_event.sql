-- Store a verified event of Stripe's; one that is there already stays as it is.
--
-- :id, :type, :object_id, :payment_intent_id (NULL: its object is of none), :payload (JSON), :at_ms
-- :attempts, :due_at_ms  claimed at once by the node that stores it, if that has room to work on it
-- Returns  the id; no row if it was there
INSERT INTO stripe_events
  (id, type, object_id, payment_intent_id, payload, received_at_ms, attempts, next_attempt_at_ms, failures)
VALUES (:id, :type, :object_id, :payment_intent_id, :payload, :at_ms, :attempts, :due_at_ms, 0)
ON CONFLICT (id) DO NOTHING
RETURNING id
