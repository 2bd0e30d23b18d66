-- Forget one place where an account is signed in.
--
-- :account_id    :id
-- Returns  when its token ends
DELETE FROM sign_ins WHERE account_id = :account_id AND id = :id
RETURNING expires_at_ms
