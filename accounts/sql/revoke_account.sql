-- Revoke all tokens of an account that were issued until an instant.
--
-- :id  of the revocation    :account_id    :up_to_ms    :at_ms
-- What was revoked once stays so: a clock that goes backwards moves the instant no further back.
-- Stamped later than all that is there, whatever the clock says: nodes read what is new by the stamp.
INSERT INTO revocations (id, account_id, up_to_ms, changed_at_ms)
SELECT
  CAST(:id AS varchar), CAST(:account_id AS varchar), CAST(:up_to_ms AS bigint),    -- postgresql
  :id, :account_id, :up_to_ms,                                                      -- sqlite
  CASE WHEN max(changed_at_ms) >= :at_ms THEN max(changed_at_ms) + 1 ELSE :at_ms END
FROM revocations
WHERE true
ON CONFLICT (id) DO UPDATE SET
  up_to_ms = CASE WHEN excluded.up_to_ms > revocations.up_to_ms THEN excluded.up_to_ms ELSE revocations.up_to_ms END,
  changed_at_ms = excluded.changed_at_ms
