-- Let a customer's payments be taken note of one after the other, for the rest of the transaction.
--
-- :checkout_id  one that is being claimed
-- Locks  its customer's row, after the checkout's. On SQLite the writing transaction is lock enough.
SELECT id FROM accounts WHERE id = (SELECT customer_id FROM checkouts WHERE id = :checkout_id)
FOR NO KEY UPDATE                                  -- postgresql
