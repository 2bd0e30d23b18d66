-- Use a token for a new password up: of two who come with it, one finds it.
--
-- :id  digest of the token    :now_ms
-- Returns  whose it was
DELETE FROM password_resets WHERE id = :id AND expires_at_ms > :now_ms
RETURNING account_id
