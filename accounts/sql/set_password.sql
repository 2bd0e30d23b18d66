-- Give an account another password, whatever it had.
--
-- :id    :password_hash
UPDATE accounts SET password_hash = :password_hash WHERE id = :id
