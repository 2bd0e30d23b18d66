-- Let nobody change an account's password until the transaction ends, if it is still the one that has just been proven.
--
-- :id    :password_hash  as it was read; empty for none
-- Returns  its id; no row if the password has been changed since, or the account disabled
-- Locks  the account's row, shared: of this and a change, the later one sees what the other has done.
SELECT id FROM accounts WHERE id = :id AND coalesce(password_hash, '') = :password_hash AND disabled_at_ms IS NULL
FOR SHARE                                  -- postgresql
