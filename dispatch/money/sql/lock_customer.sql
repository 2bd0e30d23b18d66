-- Let a customer's payments be taken note of one after the other, for the rest of the transaction.
--
-- :checkout_id  one that is being claimed
-- Returns  the customer's id, and whether the account has been erased: nobody is there to be served. It cannot be, from here on.
-- Locks  its customer's row, after the checkout's. On SQLite the writing transaction is lock enough.
SELECT id, erased_at_ms IS NOT NULL FROM accounts WHERE id = (SELECT customer_id FROM checkouts WHERE id = :checkout_id)
FOR NO KEY UPDATE                                  -- postgresql
