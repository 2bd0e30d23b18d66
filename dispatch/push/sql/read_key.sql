-- A kept key.
--
-- :name
SELECT value FROM kept_keys WHERE name = :name
