-- Take the requests' rows for the rest of the transaction.
--
-- :ids  requests
-- Returns  the ids of those that there are
-- Locks  their rows, in the order of their ids, so that nobody waits for each other in a circle. Everything that touches a
--        request takes this lock, or one of the two beside it, first. On SQLite the writing transaction is lock enough.
SELECT id FROM session_requests
WHERE id = ANY (:ids)                              -- postgresql
WHERE id IN (SELECT value FROM json_each(:ids))    -- sqlite
ORDER BY id
FOR NO KEY UPDATE                                  -- postgresql
