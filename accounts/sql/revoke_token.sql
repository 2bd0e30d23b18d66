-- Revoke one token, or all of a device; what is revoked already stays so.
--
-- :id  of the revocation    :account_id    :token_expires_at_ms  until when it has to be remembered    :at_ms
-- Stamped as in ``revoke_account.sql``.
INSERT INTO revocations (id, account_id, token_expires_at_ms, changed_at_ms)
SELECT
  CAST(:id AS varchar), CAST(:account_id AS varchar), CAST(:token_expires_at_ms AS bigint),    -- postgresql
  :id, :account_id, :token_expires_at_ms,                                                      -- sqlite
  CASE WHEN max(changed_at_ms) >= :at_ms THEN max(changed_at_ms) + 1 ELSE :at_ms END
FROM revocations
WHERE true
ON CONFLICT (id) DO NOTHING
