-- Give an account another password.
--
-- :id    :password_hash    :before  the hash that it has, or that it had when it was looked at; empty for none
-- Returns  its id; no row if it has been changed since
UPDATE accounts SET password_hash = :password_hash
WHERE id = :id AND coalesce(password_hash, '') = :before AND disabled_at_ms IS NULL
RETURNING id
