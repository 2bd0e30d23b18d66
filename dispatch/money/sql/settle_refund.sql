-- Write down how it stands with what is to go back; what was wrong before is over.
--
-- :id, :status, :stripe_refund_id (NULL: as it was), :next_attempt_at_ms (NULL: nothing more to do), :settled_at_ms, :last_error (NULL: nothing is wrong)
-- Locks  its row, after those of the request and the ledger
UPDATE refunds
SET status = :status, stripe_refund_id = coalesce(:stripe_refund_id, stripe_refund_id), next_attempt_at_ms = :next_attempt_at_ms,
    settled_at_ms = :settled_at_ms, failures = 0, last_error = :last_error, set_aside_at_ms = NULL
WHERE id = :id
