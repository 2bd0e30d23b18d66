-- Which of the requests will not be offered again to which of the mechanics.
--
-- :request_ids, :mechanic_ids
SELECT request_id, mechanic_id FROM exclusions
WHERE request_id = ANY (:request_ids) AND mechanic_id = ANY (:mechanic_ids)    -- postgresql
WHERE request_id IN (SELECT value FROM json_each(:request_ids))                -- sqlite
  AND mechanic_id IN (SELECT value FROM json_each(:mechanic_ids))              -- sqlite
