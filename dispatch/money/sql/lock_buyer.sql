-- Let a customer's bookings be made one after the other, for the rest of the transaction.
--
-- :customer_id
-- Returns  their id; no row if the account has been disabled, or erased, while they were booking
-- Locks  the customer's row. On SQLite the writing transaction is lock enough.
SELECT id FROM accounts WHERE id = :customer_id AND disabled_at_ms IS NULL
FOR NO KEY UPDATE                                  -- postgresql
