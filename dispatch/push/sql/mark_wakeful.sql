-- Offers are looked at from now on for whether somebody has to be woken for them.
--
-- :ids
-- Locks  their rows, but none that somebody else holds: of many at a time, nobody waits for each other in a circle. What is left out
--        is overlooked once more
UPDATE offers SET may_wake = true
WHERE id IN (SELECT id FROM offers WHERE id = ANY (:ids) FOR NO KEY UPDATE SKIP LOCKED)    -- postgresql
WHERE id IN (SELECT value FROM json_each(:ids))                                            -- sqlite
