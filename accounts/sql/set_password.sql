-- Give an account another password, whatever it had.
--
-- :id    :password_hash
-- Returns  its id; no row if it has been disabled
UPDATE accounts SET password_hash = :password_hash WHERE id = :id AND disabled_at_ms IS NULL
RETURNING id
