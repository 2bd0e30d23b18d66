-- Everything has let go of an account, unless it has been offered something since one began to look.
--
-- :id    :since_ms  as ``departing.sql`` said
UPDATE accounts SET departing_since_ms = NULL WHERE id = :id AND departing_since_ms = :since_ms
