-- Forget whom an account trusted, and who trusted it.
--
-- :account_id
DELETE FROM favorites WHERE customer_id = :account_id OR mechanic_id = :account_id
