-- Whose password a token lets somebody set.
--
-- :id  digest of the token    :now_ms
SELECT account_id FROM password_resets WHERE id = :id AND expires_at_ms > :now_ms
