-- Revoke one token; one that is revoked already stays so.
--
-- :id  of the revocation    :account_id    :token_expires_at_ms  when it would have ended    :at_ms
INSERT INTO revocations (id, account_id, token_expires_at_ms, changed_at_ms)
VALUES (:id, :account_id, :token_expires_at_ms, :at_ms)
ON CONFLICT (id) DO NOTHING
