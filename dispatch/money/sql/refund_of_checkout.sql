-- That all of a checkout's payment is to go back, and how it stands with that.
--
-- :checkout_id
-- Returns  a row of ``OwedBack``; none if nothing has to go back
-- Locks  its row, after the request's
SELECT id, status, stripe_refund_id FROM refunds WHERE checkout_id = :checkout_id
FOR NO KEY UPDATE                                  -- postgresql
