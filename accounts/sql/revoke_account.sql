-- Revoke all tokens of an account that were issued until an instant.
--
-- :id  of the revocation    :account_id    :up_to_ms    :at_ms
-- What was revoked once stays so: a clock that goes backwards moves the instant no further back.
INSERT INTO revocations (id, account_id, up_to_ms, changed_at_ms)
VALUES (:id, :account_id, :up_to_ms, :at_ms)
ON CONFLICT (id) DO UPDATE SET
  up_to_ms = CASE WHEN excluded.up_to_ms > revocations.up_to_ms THEN excluded.up_to_ms ELSE revocations.up_to_ms END,
  changed_at_ms = excluded.changed_at_ms
