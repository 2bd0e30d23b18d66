-- Forget checkouts that came to nothing and on which nothing hangs: no request, no payment, no refund.
--
-- :ids, :before_ms
-- Returns  the ids
-- Locks  the checkouts, but for those that somebody else has locked
DELETE FROM checkouts
WHERE status IN ('expired', 'failed') AND request_id IS NULL AND payment_intent_id IS NULL AND created_at_ms < :before_ms
  AND NOT EXISTS (SELECT 1 FROM session_requests r WHERE r.checkout_id = checkouts.id)
  AND NOT EXISTS (SELECT 1 FROM refunds f WHERE f.checkout_id = checkouts.id)
  AND NOT EXISTS (SELECT 1 FROM ledgers l WHERE l.checkout_id = checkouts.id)
  AND id IN (SELECT value FROM json_each(:ids))                                                     -- sqlite
  AND id = ANY (ARRAY(                                                                              -- postgresql
    SELECT id FROM checkouts WHERE id = ANY (:ids) ORDER BY id FOR UPDATE SKIP LOCKED               -- postgresql
  ))                                                                                                -- postgresql
RETURNING id
