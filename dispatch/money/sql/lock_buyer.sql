-- Let a customer's bookings be made one after the other, for the rest of the transaction.
--
-- :customer_id
-- Locks  the customer's row. On SQLite the writing transaction is lock enough.
SELECT id FROM accounts WHERE id = :customer_id
FOR NO KEY UPDATE                                  -- postgresql
