-- Let an account be neither disabled nor erased, and nothing of it be revoked, until the transaction ends.
--
-- :id
-- Returns  its id; no row if it is disabled
-- Locks  the account's row, shared, as hold_password does.
SELECT id FROM accounts WHERE id = :id AND disabled_at_ms IS NULL
FOR SHARE                                  -- postgresql
