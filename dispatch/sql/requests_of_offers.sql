-- Whose windows these are, whoever holds their rows.
--
-- :offer_ids
-- Returns  each offer's id, and its request's (NULL if that is not there), of those offers that there are
SELECT o.id, r.id
FROM offers o
LEFT JOIN session_requests r ON r.id = o.request_id
WHERE o.id = ANY (:offer_ids)                              -- postgresql
WHERE o.id IN (SELECT value FROM json_each(:offer_ids))    -- sqlite
