-- Store a verified event of Stripe's; one that is there already stays as it is.
--
-- :id, :type, :object_id, :payload (JSON), :at_ms
-- Returns  the id; no row if it was there
INSERT INTO stripe_events (id, type, object_id, payload, received_at_ms, attempts, next_attempt_at_ms, failures)
VALUES (:id, :type, :object_id, :payload, :at_ms, 0, :at_ms, 0)
ON CONFLICT (id) DO NOTHING
RETURNING id
