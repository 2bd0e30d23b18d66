-- Forget links to a new password.
--
-- :account_id
DELETE FROM password_resets WHERE account_id = :account_id
