-- The requests of customers, and the sessions of mechanics, that are not settled or were so lately.
--
-- :account_ids, :since_ms
SELECT id FROM session_requests
WHERE (status IN ('priority_offered', 'broadcasting', 'accepted', 'in_progress') OR settled_at_ms > :since_ms)
  AND (customer_id = ANY (:account_ids) OR assigned_mechanic_id = ANY (:account_ids))    -- postgresql
  AND (customer_id IN (SELECT value FROM json_each(:account_ids))                        -- sqlite
    OR assigned_mechanic_id IN (SELECT value FROM json_each(:account_ids)))              -- sqlite
