-- Forget all tokens for a new password of an account.
--
-- :account_id
DELETE FROM password_resets WHERE account_id = :account_id
