-- Write when a mechanic was last heard of; an instant that is later in SQL stays.
--
-- :mechanic_id, :seen_at_ms
-- Locks  the mechanic's row: executed for many in the order of their ids, so that nobody waits for each other in a circle
UPDATE mechanics SET last_seen_at_ms = :seen_at_ms
WHERE id = :mechanic_id AND (last_seen_at_ms IS NULL OR last_seen_at_ms < :seen_at_ms)
