-- Lock a mechanic's row until the transaction ends.
--
-- :mechanic_id
-- Returns  the id; no row if it is no mechanic
SELECT id FROM mechanics WHERE id = :mechanic_id
FOR UPDATE    -- postgresql
