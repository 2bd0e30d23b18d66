-- Whether mechanics want to be asked, and what they are busy with.
--
-- :ids  mechanics; who is none is missing in the answer
SELECT id, on_duty, active_request_id, facts_version FROM mechanics
WHERE id = ANY (:ids)                              -- postgresql
WHERE id IN (SELECT value FROM json_each(:ids))    -- sqlite
