-- Everything has let go of an account.
--
-- :id
UPDATE accounts SET departing_since_ms = NULL WHERE id = :id
