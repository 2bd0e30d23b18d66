-- The requests that mechanics had and lost, and that are not settled or were so lately. Who declined one never had it.
--
-- :mechanic_ids, :since_ms
SELECT r.id, e.mechanic_id
FROM exclusions e
JOIN session_requests r ON r.id = e.request_id
WHERE e.because <> 'declined' AND (r.settled_at_ms IS NULL OR r.settled_at_ms > :since_ms)
  AND e.mechanic_id = ANY (:mechanic_ids)                              -- postgresql
  AND e.mechanic_id IN (SELECT value FROM json_each(:mechanic_ids))    -- sqlite
