-- Forget where an account can be woken, with all that waits to be sent there.
--
-- :account_id
DELETE FROM push_subscriptions WHERE mechanic_id = :account_id
