-- Let a customer whose free session came to nothing have another one.
--
-- :customer_id
-- Locks  the customer's row, after the request's: executed for many in the order of their ids, so that nobody waits for each other
--        in a circle
UPDATE accounts SET free_session_used = false WHERE id = :customer_id
