-- Let a customer whose free session came to nothing have another one.
--
-- :customer_id
UPDATE accounts SET free_session_used = false WHERE id = :customer_id
