-- The customers' requests that are not settled.
--
-- :customer_ids
SELECT id FROM session_requests
WHERE settled_at_ms IS NULL
  AND customer_id = ANY (:customer_ids)                              -- postgresql
  AND customer_id IN (SELECT value FROM json_each(:customer_ids))    -- sqlite
