-- Take the rows of the requests whose windows are to be ended.
--
-- :offer_ids
-- Returns  each offer's id and its request's, of those requests that nobody else holds: nobody's slowness is to hold up others
-- Locks  the requests' rows, see ``lock_requests``
SELECT o.id, r.id
FROM offers o
JOIN session_requests r ON r.id = o.request_id
WHERE o.id = ANY (:offer_ids)                              -- postgresql
WHERE o.id IN (SELECT value FROM json_each(:offer_ids))    -- sqlite
ORDER BY r.id
FOR NO KEY UPDATE OF r SKIP LOCKED                         -- postgresql
