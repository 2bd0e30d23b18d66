-- Whose windows these are, whoever holds their rows.
--
-- :offer_ids
-- Returns  each offer's id, and its request's, of those offers that there are
SELECT o.id, o.request_id
FROM offers o
WHERE o.id = ANY (:offer_ids)                              -- postgresql
WHERE o.id IN (SELECT value FROM json_each(:offer_ids))    -- sqlite
