-- Forget an account's tokens for a new password that are too old, or too many.
--
-- :account_id    :now_ms    :kept  how many stay, the newest
DELETE FROM password_resets
WHERE account_id = :account_id AND (expires_at_ms <= :now_ms OR id NOT IN (
  SELECT id FROM password_resets WHERE account_id = :account_id ORDER BY expires_at_ms DESC, id LIMIT :kept
))
