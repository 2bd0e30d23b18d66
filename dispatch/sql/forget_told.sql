-- Forget what has been told.
--
-- :ids
DELETE FROM outbox
WHERE id = ANY (:ids)                              -- postgresql
WHERE id IN (SELECT value FROM json_each(:ids))    -- sqlite
