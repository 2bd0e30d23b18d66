-- Let somebody set an account's password once.
--
-- :id  digest of the token    :account_id    :expires_at_ms
INSERT INTO password_resets (id, account_id, expires_at_ms) VALUES (:id, :account_id, :expires_at_ms)
