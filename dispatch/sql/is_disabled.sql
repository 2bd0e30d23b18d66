-- Whether a mechanic is disabled, for somebody who has just offered them something.
--
-- :mechanic_id
-- Locks  the mechanic's row against being disabled: whoever disables waits until the offer can be seen, or is waited for
SELECT is_disabled FROM mechanics WHERE id = :mechanic_id
FOR SHARE    -- postgresql
