-- The requests of customers, and the sessions of mechanics, that are not settled or were so lately.
--
-- :account_ids, :since_ms
--
-- Each branch is one range of an index; with OR in their place, years of history would be looked through.
SELECT id FROM session_requests
WHERE settled_at_ms IS NULL
  AND customer_id = ANY (:account_ids)                              -- postgresql
  AND customer_id IN (SELECT value FROM json_each(:account_ids))    -- sqlite
UNION
SELECT id FROM session_requests
WHERE settled_at_ms > :since_ms
  AND customer_id = ANY (:account_ids)                              -- postgresql
  AND customer_id IN (SELECT value FROM json_each(:account_ids))    -- sqlite
UNION
SELECT id FROM session_requests
WHERE settled_at_ms IS NULL
  AND assigned_mechanic_id = ANY (:account_ids)                              -- postgresql
  AND assigned_mechanic_id IN (SELECT value FROM json_each(:account_ids))    -- sqlite
UNION
SELECT id FROM session_requests
WHERE settled_at_ms > :since_ms
  AND assigned_mechanic_id = ANY (:account_ids)                              -- postgresql
  AND assigned_mechanic_id IN (SELECT value FROM json_each(:account_ids))    -- sqlite
