-- Let a refund be asked for once more, from the beginning: one that has failed under a new key.
--
-- :id (of the refund, or of its request), :at_ms
-- Returns  its id; no row if there is none such, or all is back
UPDATE refunds
SET key_number = CASE WHEN status = 'failed' THEN key_number + 1 ELSE key_number END,
    asked_cents = CASE WHEN status = 'failed' THEN NULL ELSE asked_cents END,
    status = 'pending', stripe_refund_id = NULL, next_attempt_at_ms = :at_ms, settled_at_ms = NULL, key_errors = 0, failures = 0,
    last_error = NULL, set_aside_at_ms = NULL
WHERE (id = :id OR request_id = :id) AND status <> 'succeeded'
RETURNING id
