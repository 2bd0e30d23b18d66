-- Offers are looked at from now on for whether somebody has to be woken for them.
--
-- :ids
UPDATE offers SET may_wake = true
WHERE id = ANY (:ids)                              -- postgresql
WHERE id IN (SELECT value FROM json_each(:ids))    -- sqlite
